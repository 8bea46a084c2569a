# Sluice as a static program in an image without a shell: docker build -t sluice .
# For both platforms: docker buildx build --platform linux/amd64,linux/arm64 -t sluice .
#
# Sluice's default, the loopback address of the container, is reached by nobody outside: a configuration has to say
# `listen: :5000`, and who may use it. One that admits everybody, on a port of this machine only:
#
#   docker run -p 127.0.0.1:5000:5000 -v sluice:/var/lib/sluice \
#     -v "$PWD/deploy/compose/sluice.yml:/etc/sluice.yml:ro" sluice serve --config /etc/sluice.yml
#
# The health check asks 127.0.0.1:5080, or where SLUICE_ADMIN says: set that instead of `admin`.
#
# The compiler runs on the machine's own platform, whatever it compiles for. The classic builder (Docker 20.10
# without BuildKit) sets none of these variables and makes an image for linux/amd64.
FROM --platform=${BUILDPLATFORM:-linux/amd64} golang:1.26 AS build
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY filters filters
COPY proxy proxy
RUN mkdir -p /empty && \
    CGO_ENABLED=0 GOOS=linux GOARCH=${TARGETARCH:-amd64} \
    go build -trimpath -buildvcs=false -ldflags "-s -w" -o /sluice ./cmd/sluice

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /sluice /sluice
# Folders that volumes are mounted over take their owner from here.
COPY --from=build --chown=65532:65532 /empty /var/lib/sluice
COPY --from=build --chown=65532:65532 /empty /ca
USER 65532:65532
# Below it is what Sluice keeps by default, ./sluice-data.
WORKDIR /var/lib/sluice
VOLUME /var/lib/sluice
EXPOSE 5000 5080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["/sluice", "healthcheck"]
ENTRYPOINT ["/sluice"]
CMD ["serve"]
