//go:build e2e

package e2e

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sluice/proxy/proxytest"
)

// A clientCertificate is in three files, as clients want it.
type clientCertificate struct{ ca, cert, key string }

// mtls is a Sluice that lets in whoever has a certificate, and certificates of three kinds.
type mtls struct {
	*world
	ca                     string // of the server, a file
	alice, mallory, forged clientCertificate
}

// outside is an address of this machine that is not of its loopback network: Docker reads no certificates for a registry on
// that, which it trusts anyhow.
func outside(t testing.TB) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	shared(t, func() (any, error) { return nil, errUnavailable("this machine has no address but loopback") })
	return ""
}

func newMTLS(t *testing.T) *mtls {
	t.Helper()
	address := outside(t)
	dir := scratch(t)
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// The other authority has the name of the one that counts: Go's clients send no certificate of an issuer whose name
	// the server has not said.
	servers, clients, others := proxytest.NewCA(t, "servers"), proxytest.NewCA(t, "clients"), proxytest.NewCA(t, "clients")
	server := servers.Server(func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.ParseIP(address)) })
	m := &mtls{ca: file("ca.crt", servers.PEM)}
	for name, at := range map[string]*clientCertificate{"alice": &m.alice, "mallory": &m.mallory, "forged": &m.forged} {
		cert := clients.Client(name)
		if name == "forged" {
			cert = others.Client("alice")
		}
		*at = clientCertificate{m.ca, file(name+".cert", cert.CertPEM), file(name+".key", cert.KeyPEM)}
	}
	upstream, err := startRegistry(filepath.Join(dir, "upstream"))
	if err != nil {
		shared(t, func() (any, error) { return nil, err })
	}
	t.Cleanup(upstream.proc.stop)
	m.world = &world{upstream: upstream, direct: upstream.host}
	m.sluice = startSluiceOn(t, address, upstream, "credentials: anonymous", fmt.Sprintf(
		"tls: {certificate: %q, key: %q, client_ca: %q}\naccess:\n  mode: mtls\n  permissions: [{identity: alice, repositories: [\"alice/**\"], actions: [pull, push]}]\n",
		file("server.crt", server.CertPEM), file("server.key", server.KeyPEM), file("clients.crt", clients.PEM)))
	m.via = m.sluice.host
	return m
}

func (m *mtls) source(t testing.TB) string {
	t.Helper()
	for repository, tree := range map[string]*proxytest.Tree{
		"source":    proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true}),
		"reference": proxytest.Synthetic(proxytest.SyntheticOptions{}),
	} {
		if _, err := proxytest.BuildKit(t.Context(), proxytest.Options{BaseURL: "http://" + m.direct, Repository: repository, Tags: []string{"1"}, Tree: tree}); err != nil {
			t.Fatal(err)
		}
	}
	return m.direct + "/source:1"
}

// What clients say of a handshake that Sluice ends. Of TLS 1.3's alerts Go shows the text; Sluice may have closed the
// connection before a client has sent all of its request.
const (
	saysNoCertificate    = `certificate required|bad certificate|broken pipe|connection reset`
	saysOtherCertificate = `unknown certificate authority|bad certificate|broken pipe|connection reset`
)

// Clients that can present a certificate copy an image with it.
func TestClientsSignInWithACertificate(t *testing.T) {
	for _, c := range []struct {
		name, program string
		copy          func(t testing.TB, m *mtls, c *clientCertificate, from, to string) (string, error)
	}{
		{"regctl", "regctl", func(t testing.TB, m *mtls, c *clientCertificate, from, to string) (string, error) {
			env, regctl := []string{"REGCTL_CONFIG=" + filepath.Join(scratch(t), "regctl.json")}, tool(t, "regctl")
			read := func(path string) string {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			set := []string{regctl, "registry", "set", m.via, "--skip-check", "--cacert", read(m.ca)}
			if c != nil {
				set = append(set, "--client-cert", read(c.cert), "--client-key", read(c.key))
			}
			runIn(t, "", env, set...)
			return tryRunIn("", env, append([]string{regctl, "image", "copy", from, to}, plain(from)...)...)
		}},
		{"oras", "oras", func(t testing.TB, m *mtls, c *clientCertificate, from, to string) (string, error) {
			argv := []string{tool(t, "oras"), "cp", "--from-plain-http", "--to-ca-file", m.ca}
			if c != nil {
				argv = append(argv, "--to-cert-file", c.cert, "--to-key-file", c.key)
			}
			return tryRun(append(argv, from, to)...)
		}},
		{"skopeo", "skopeo", func(t testing.TB, m *mtls, c *clientCertificate, from, to string) (string, error) {
			certs := certificateFolder(t, filepath.Join(scratch(t), "certs"), m.ca, c)
			return tryRun(tool(t, "skopeo"), "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-cert-dir", certs, "docker://"+from, "docker://"+to)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tool(t, c.program)
			m := newMTLS(t)
			from := m.source(t)
			refused := func(crt *clientCertificate, repository, why string) {
				t.Helper()
				_, err := c.copy(t, m, crt, from, m.via+"/"+repository+":1")
				if err == nil {
					t.Fatalf("a copy to %s succeeded; it must be refused", repository)
				}
				saysWhy(t, err.Error(), why)
				if got := m.upstream.manifests(t, repository); len(got) > 0 {
					t.Errorf("upstream has %v of %s", got, repository)
				}
			}
			if c.name != "regctl" { // it backs off from every refusal for two minutes
				refused(nil, "alice/app", saysNoCertificate)
				refused(&m.forged, "alice/app", saysOtherCertificate)
				refused(&m.mallory, "alice/app", saysNotHere)
				refused(&m.alice, "bob/app", saysNotHere)
			}
			if _, err := c.copy(t, m, &m.alice, from, m.via+"/alice/app:1"); err != nil {
				t.Fatal(err)
			}
			m.sluice.pushedBy(t, "alice/app", "alice")
			m.sameTags(t, "alice/app", "reference")
		})
	}
}

// crane has no way to present one, and is told what is missing.
func TestAClientWithoutACertificateIsToldSo(t *testing.T) {
	crane, m := tool(t, "crane"), newMTLS(t)
	_, err := tryRunIn("", []string{"SSL_CERT_FILE=" + m.ca}, crane, "copy", m.source(t), m.via+"/alice/app:1")
	if err == nil {
		t.Fatal("a push without a certificate succeeded")
	}
	saysWhy(t, err.Error(), saysNoCertificate)
}

// certificateFolder is as Docker, skopeo and podman look for certificates.
func certificateFolder(t testing.TB, dir, ca string, c *clientCertificate) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"ca.crt": ca}
	if c != nil {
		files["client.cert"], files["client.key"] = c.cert, c.key
	}
	for name, path := range files {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Docker finds its certificate in /etc/docker/certs.d, in a folder of the registry's name.
func TestDockerPushesWithACertificate(t *testing.T) {
	for name, get := range engines {
		t.Run(name, func(t *testing.T) {
			e := shared(t, get)
			m := newMTLS(t)
			u := e.user(t)
			certs := "/etc/docker/certs.d/" + m.via
			t.Cleanup(func() { // and the folders above it, if this test has made them
				_ = os.RemoveAll(certs)
				_ = os.Remove("/etc/docker/certs.d")
				_ = os.Remove("/etc/docker")
			})
			present := func(c *clientCertificate) {
				if err := os.RemoveAll(certs); err != nil {
					t.Fatal(err)
				}
				certificateFolder(t, certs, m.ca, c)
			}
			for _, repository := range []string{"alice/app", "bob/app"} {
				u.imports(t, m.via+"/"+repository+":1")
			}
			ref := m.via + "/alice/app:1"
			present(nil)
			saysWhy(t, u.refused(t, "push", ref), saysNoCertificate)
			present(&m.forged)
			saysWhy(t, u.refused(t, "push", ref), saysOtherCertificate)
			present(&m.mallory)
			saysWhy(t, u.refused(t, "push", ref), saysNotHere)
			present(&m.alice)
			u.must(t, "push", ref)
			m.sluice.pushedBy(t, "alice/app", "alice")
			saysWhy(t, u.refused(t, "push", m.via+"/bob/app:1"), saysNotHere)
			u.must(t, "image", "rm", "--force", ref)
			u.must(t, "pull", ref)
		})
	}
}

// BuildKit has a certificate for each registry in buildkitd.toml, so here are as many as there are certificates.
func TestBuildKitPushesWithACertificate(t *testing.T) {
	for i, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			settings := ""
			present := func(m *mtls, c *clientCertificate) {
				settings += fmt.Sprintf("[registry.%q]\n  ca = [%q]\n", m.via, m.ca)
				if c != nil {
					settings += fmt.Sprintf("  [[registry.%q.keypair]]\n    key = %q\n    cert = %q\n", m.via, c.key, c.cert)
				}
			}
			good, none, forged, mallory := newMTLS(t), newMTLS(t), newMTLS(t), newMTLS(t)
			present(good, &good.alice)
			present(none, nil)
			present(forged, &forged.forged)
			present(mallory, &mallory.mallory)
			folder := map[string]string{"old": "buildkit30", "new": "buildkit33"}[form.builder]
			k := shared(t, func() (*builder, error) { return bench.startBuilderWith(fmt.Sprintf("mtls%d", i), folder, settings) })
			t.Cleanup(k.proc.stop)
			dir := newApplication(t, 72)
			for _, c := range []struct {
				m               *mtls
				repository, why string
			}{
				{none, "alice/app", saysNoCertificate},
				{forged, "alice/app", saysOtherCertificate},
				{mallory, "alice/app", saysNotHere},
				{good, "bob/app", saysNotHere},
			} {
				_, err := k.build(dir, bothPlatforms, push(c.m.via+"/"+c.repository+":1")...)
				if err == nil {
					t.Fatalf("a push to %s succeeded; it must be refused: %s", c.repository, c.why)
				}
				saysWhy(t, err.Error(), c.why)
			}
			k.mustBuild(t, dir, bothPlatforms, push(good.via+"/alice/app:1")...)
			good.sluice.pushedBy(t, "alice/app", "alice")
			k.mustBuild(t, dir, bothPlatforms, withoutAttestations(good.direct+"/reference:1")...)
			good.same(t, "alice/app", "reference")
		})
	}
}
