{{- define "sluice.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "sluice.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "sluice.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{- /* The port behind the last colon of an address, such as :5000. */ -}}
{{- define "sluice.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{- /* What contradicts itself is refused at install time, not found in a crash loop. */ -}}
{{- define "sluice.check" -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" }}
{{- end }}
{{- if not .Values.existingSecret }}
{{- $timeout := toString (dig "shutdown_timeout" "30s" .Values.config) }}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?[hms]" (regexReplaceAll "[0-9.]+[mun\u00b5]s" $timeout "1s") -1 }}
{{- $seconds = add $seconds (mul (get (dict "h" 3600 "m" 60 "s" 1) (substr (int (sub (len .) 1)) (len .) .)) (int (ceil (float64 (trimAll "hms" .))))) }}
{{- end }}
{{- if ge (add $seconds (int .Values.preStopSeconds)) (int64 .Values.terminationGracePeriodSeconds) }}
{{- fail "terminationGracePeriodSeconds must be more than preStopSeconds and config.shutdown_timeout together: pods would be killed in the middle of pushes" }}
{{- end }}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- if and $several (or (not .Values.config.storage) (hasKey .Values.config.storage "filesystem")) }}
{{- fail "config.storage.filesystem is one replica's own: set replicaCount to 1 and autoscaling.enabled to false, or take storage that replicas share (s3, gcs, azure)" }}
{{- end }}
{{- if and $several (hasKey (default dict .Values.config.storage) "inmemory") }}
{{- fail "config.storage.inmemory is one process's own: replicas need storage that they share (s3, gcs, azure)" }}
{{- end }}
{{- $folder := toString (dig "storage" "filesystem" "rootdirectory" "" .Values.config) }}
{{- if hasPrefix "/" $folder }}
{{- $mounted := hasPrefix "/var/lib/sluice/" (print $folder "/") }}
{{- range .Values.extraVolumeMounts }}{{ if hasPrefix (print .mountPath "/") (print $folder "/") }}{{ $mounted = true }}{{ end }}{{ end }}
{{- if not $mounted }}
{{- fail (printf "config.storage.filesystem.rootdirectory is %s, where no volume is mounted and nothing can be written: persistence.existingClaim is mounted at /var/lib/sluice" $folder) }}
{{- end }}
{{- end }}
{{- if gt (len (default dict .Values.config.storage)) 1 }}
{{- fail (printf "config.storage names several drivers, %s: values are merged with the chart's own, so set the one that is not meant to null, as in config.storage.s3=null" (keys .Values.config.storage | sortAlpha | join " and ")) }}
{{- end }}
{{- $mode := dig "access" "mode" "none" .Values.config }}
{{- if and (eq $mode "none") (not (dig "access" "insecure" false .Values.config)) }}
{{- fail "config.access.mode: none lets everybody who reaches the pods push with Sluice's own credentials: choose another mode, or set config.access.insecure to true" }}
{{- end }}
{{- $urls := list }}
{{- range .Values.config.upstreams }}{{ $urls = append $urls .url }}{{ end }}
{{- if and $several (or (not $urls) (has "embedded" $urls)) }}
{{- fail "the embedded registry is one replica's own: name a registry in config.upstreams, or set replicaCount to 1 and autoscaling.enabled to false" }}
{{- end }}
{{- if and (eq $mode "passthrough") (gt (len (uniq $urls)) 1) }}
{{- fail "config.access.mode: passthrough, the chart's default, is for one registry: with several in config.upstreams choose another mode" }}
{{- end }}
{{- if not (regexMatch "^:[0-9]+$" (toString .Values.config.listen)) }}
{{- fail "config.listen must be a port on every address of the pod, such as :5000" }}
{{- end }}
{{- if not (regexMatch "^:[0-9]+$" (toString .Values.config.admin)) }}
{{- fail "config.admin must be a port on every address of the pod, such as :5080: the probes ask there" }}
{{- end }}
{{- $clientCA := dig "tls" "client_ca" "" .Values.config }}
{{- if and (eq $mode "mtls") (not $clientCA) }}
{{- fail "config.access.mode: mtls takes identities from client certificates: set config.tls.client_ca to the authorities that sign them, such as /etc/sluice/tls/ca.crt if the Secret of tls.secretName has them" }}
{{- end }}
{{- if and $clientCA (not (dig "tls" "certificate" "" .Values.config)) }}
{{- fail "client certificates (config.access.mode: mtls, config.tls.client_ca) need https, and nothing is served over it: set tls.secretName, config.tls.certificate to /etc/sluice/tls/tls.crt and config.tls.key to /etc/sluice/tls/tls.key" }}
{{- end }}
{{- if and .Values.tls.secretName (not (and (dig "tls" "certificate" "" .Values.config) (dig "tls" "key" "" .Values.config))) }}
{{- fail "tls.secretName is not served: set config.tls.certificate to /etc/sluice/tls/tls.crt and config.tls.key to /etc/sluice/tls/tls.key" }}
{{- end }}
{{- end }}
{{- end }}
