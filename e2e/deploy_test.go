//go:build e2e

package e2e

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	chart = "../deploy/helm/sluice"
	// A helm that is built from source thinks of a Kubernetes of years ago.
	kubernetes = "1.31.0"
)

// A manifest of Kubernetes, as far as the tests look.
type resource struct {
	Kind     string
	Metadata struct {
		Name        string
		Annotations map[string]string
	}
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Replicas *int
		Template struct {
			Spec struct {
				ServiceAccountName string `yaml:"serviceAccountName"`
				SecurityContext    struct {
					RunAsNonRoot        bool   `yaml:"runAsNonRoot"`
					FSGroupChangePolicy string `yaml:"fsGroupChangePolicy"`
				} `yaml:"securityContext"`
				Containers []struct {
					Image           string
					Args            []string
					Env             []map[string]string
					ReadinessProbe  map[string]any `yaml:"readinessProbe"`
					LivenessProbe   map[string]any `yaml:"livenessProbe"`
					SecurityContext struct {
						AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
						ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
						Capabilities             struct{ Drop []string }
					} `yaml:"securityContext"`
				}
				Volumes []map[string]any
			}
		}
	}
}

// render is `helm template`, by kind.
func render(t *testing.T, args ...string) map[string]resource {
	t.Helper()
	out := run(t, append([]string{tool(t, "helm"), "template", "push", chart, "--kube-version", kubernetes}, args...)...)
	found := map[string]resource{}
	for d := yaml.NewDecoder(strings.NewReader(out)); ; {
		var r resource
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if r.Kind != "" {
			found[r.Kind] = r
		}
	}
}

func kinds(found map[string]resource) []string {
	var all []string
	for k := range found {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func TestTheChartIsWhatHelmLikes(t *testing.T) {
	run(t, tool(t, "helm"), "lint", "--strict", chart)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"as it is":   {nil, []string{"Deployment", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"}},
		"autoscaled": {[]string{"--set", "autoscaling.enabled=true"}, []string{"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"}},
		"one replica with a volume": {
			[]string{"--set", "replicaCount=1", "--set", "persistence.existingClaim=data", "--set-json", `config.storage={"s3":null,"filesystem":{"rootdirectory":"/var/lib/sluice"}}`},
			[]string{"Deployment", "Secret", "Service", "ServiceAccount"},
		},
		"a Secret of one's own":   {[]string{"--set", "existingSecret=mine", "--set", "serviceAccount.create=false"}, []string{"Deployment", "PodDisruptionBudget", "Service"}},
		"open to all, on purpose": {[]string{"--set", "config.access.mode=none", "--set", "config.access.insecure=true"}, []string{"Deployment", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"}},
		"several registries": {
			[]string{"--set-json", `config.upstreams=[{"url":"https://a.example.com"},{"prefix":"b","url":"https://b.example.com"}]`, "--set-json", `config.access={"mode":"htpasswd","htpasswd":"/etc/sluice/users"}`},
			[]string{"Deployment", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"},
		},
		"a volume of one's own, and time to end": {
			[]string{
				"--set", "replicaCount=1", "--set", "config.shutdown_timeout=1m30s", "--set", "terminationGracePeriodSeconds=100", "--set", "readinessPath=/healthz",
				"--set-json", `extraVolumeMounts=[{"name":"mine","mountPath":"/data"}]`, "--set-json", `extraVolumes=[{"name":"mine","emptyDir":{}}]`,
				"--set-json", `config.storage={"s3":null,"filesystem":{"rootdirectory":"/data/sluice"}}`,
			},
			[]string{"Deployment", "Secret", "Service", "ServiceAccount"},
		},
		"client certificates": {
			[]string{
				"--set", "tls.secretName=t", "--set", "config.access.mode=mtls", "--set-json",
				`config.tls={"certificate":"/etc/sluice/tls/tls.crt","key":"/etc/sluice/tls/tls.key","client_ca":"/etc/sluice/tls/ca.crt"}`,
				"--set-json", `config.upstreams=[{"url":"https://registry.example.com"}]`,
			},
			[]string{"Deployment", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"},
		},
		"watched": {[]string{"--set", "metrics.serviceMonitor.enabled=true"}, []string{"Deployment", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount", "ServiceMonitor"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := render(t, c.args...)
			if got := kinds(found); !slices.Equal(got, c.want) {
				t.Errorf("renders %v, want %v", got, c.want)
			}
			pod := found["Deployment"].Spec.Template.Spec
			box := pod.Containers[0]
			if sc := box.SecurityContext; !pod.SecurityContext.RunAsNonRoot || !sc.ReadOnlyRootFilesystem || sc.AllowPrivilegeEscalation == nil ||
				*sc.AllowPrivilegeEscalation || !slices.Equal(sc.Capabilities.Drop, []string{"ALL"}) {
				t.Errorf("the container may do more than it needs: %+v", sc)
			}
			if pod.SecurityContext.FSGroupChangePolicy != "OnRootMismatch" {
				t.Error("each start walks through every file of the volume, and opens them to the group")
			}
			if box.ReadinessProbe == nil || box.LivenessProbe == nil {
				t.Error("no probes")
			}
			if s, ok := found["Secret"]; ok {
				file := filepath.Join(scratch(t), "config.yml")
				if err := os.WriteFile(file, []byte(s.StringData["config.yml"]), 0o600); err != nil {
					t.Fatal(err)
				}
				run(t, shared(t, bench.sluice), "check-config", file)
			}
		})
	}
}

func TestTheValuesOfTheReadmeAreAConfigurationForReplicas(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	values := regexp.MustCompile(`(?s)cat >values.yaml <<'END'\n(.*?)\nEND\n`).FindSubmatch(b)
	if values == nil {
		t.Fatal("the README has no values.yaml")
	}
	dir := scratch(t)
	file := filepath.Join(dir, "values.yaml")
	if err := os.WriteFile(file, values[1], 0o600); err != nil {
		t.Fatal(err)
	}
	found := render(t, "-f", file)
	if got, want := found["Deployment"].Spec.Template.Spec.Containers[0].Image, "registry.example.com/sluice:0.1.0"; got != want {
		t.Errorf("the image is %s, the README says that it is pushed as %s", got, want)
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(found["Secret"].StringData["config.yml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, shared(t, bench.sluice), "check-config", config)
	for _, want := range []string{"access passthrough", "amazonaws.com, credentials passthrough", "s3, which replicas can share"} {
		if !strings.Contains(out, want) {
			t.Errorf("check-config says %q, not %q", out, want)
		}
	}
}

func TestTheChartRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"replicas without shared storage": {[]string{"--set-json", `config.storage={"s3":null,"filesystem":{"rootdirectory":"/var/lib/sluice"}}`}, "one replica's own"},
		"a certificate nobody serves":     {[]string{"--set", "tls.secretName=t"}, "tls.secretName is not served"},
		"half a certificate":              {[]string{"--set", "tls.secretName=t", "--set", "config.tls.certificate=/etc/sluice/tls/tls.crt"}, "tls.secretName is not served"},
		"client certificates over http":   {[]string{"--set", "config.access.mode=mtls", "--set", "config.tls.client_ca=/etc/sluice/ca.pem"}, "need https"},
		"for another mode, too":           {[]string{"--set", "config.tls.client_ca=/etc/sluice/ca.pem"}, "need https"},
		"certificates of nobody":          {[]string{"--set", "config.access.mode=mtls", "--set", "tls.secretName=t", "--set", "config.tls.certificate=/etc/sluice/tls/tls.crt", "--set", "config.tls.key=/etc/sluice/tls/tls.key"}, "set config.tls.client_ca"},
		"a driver beside the chart's own": {[]string{"--set", "replicaCount=1", "--set", "config.storage.filesystem.rootdirectory=/var/lib/sluice"}, "several drivers, filesystem and s3"},
		"a proxy that is open to all":     {[]string{"--set", "config.access.mode=none"}, "config.access.insecure"},
		"one that is open by default":     {[]string{"--set", "config.access=null"}, "config.access.insecure"},
		"one password for two registries": {[]string{"--set-json", `config.upstreams=[{"url":"https://a.example.com"},{"prefix":"b","url":"https://b.example.com"}]`}, "passthrough"},
		"no configuration":                {[]string{"--set", "config=null"}, "config"},
		"an admin address nobody reaches": {[]string{"--set", "config.admin=127.0.0.1:5080"}, "config.admin must be a port"},
		"less time to end than promised":  {[]string{"--set", "config.shutdown_timeout=2m"}, "terminationGracePeriodSeconds must be more"},
		"a timeout of two parts":          {[]string{"--set", "config.shutdown_timeout=1m30s"}, "terminationGracePeriodSeconds must be more"},
		"a registry in each of two pods":  {[]string{"--set-json", `config.upstreams=[{"url":"embedded"}]`}, "the embedded registry is one replica's own"},
		"one by default":                  {[]string{"--set-json", `config.upstreams=null`}, "the embedded registry is one replica's own"},
		"a folder nobody has mounted": {
			[]string{"--set", "replicaCount=1", "--set", "persistence.existingClaim=data", "--set-json", `config.storage={"s3":null,"filesystem":{"rootdirectory":"/data"}}`},
			"no volume is mounted",
		},
		"another path to be ready":    {[]string{"--set", "readinessPath=/metrics"}, "readinessPath"},
		"not even for one's own":      {[]string{"--set", "terminationGracePeriodSeconds=35"}, "terminationGracePeriodSeconds must be more"},
		"fewer at most than at least": {[]string{"--set", "autoscaling.enabled=true", "--set", "autoscaling.minReplicas=20"}, "autoscaling.minReplicas is more"},
		"a name that is mistyped":     {[]string{"--set", "replicas=3"}, "replicas"},
		"a mistyped one further down": {[]string{"--set", "service.Port=80"}, "Port"},
		"a word for a number":         {[]string{"--set-string", "replicaCount=two"}, "replicaCount"},
	} {
		t.Run(name, func(t *testing.T) {
			out := mustFail(t, append([]string{tool(t, "helm"), "template", "push", chart, "--kube-version", kubernetes}, c.args...)...)
			if !strings.Contains(out, c.want) {
				t.Errorf("helm says %q, not %q", out, c.want)
			}
		})
	}
}

func TestTheChartsServiceAccountTakesARole(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/sluice"
	found := render(t, "--set", `serviceAccount.annotations.eks\.amazonaws\.com/role-arn=`+role)
	if got := found["ServiceAccount"].Metadata.Annotations["eks.amazonaws.com/role-arn"]; got != role {
		t.Errorf("the service account has the role %q", got)
	}
	if got, want := found["Deployment"].Spec.Template.Spec.ServiceAccountName, found["ServiceAccount"].Metadata.Name; got != want {
		t.Errorf("the pods run as %q, the service account is %q", got, want)
	}
}

// systemd's own opinion of the unit; the program is not where the unit says, which is no fault of it.
func TestTheUnitIsWhatSystemdLikes(t *testing.T) {
	dir := scratch(t)
	b, err := os.ReadFile("../deploy/systemd/sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := strings.ReplaceAll(string(b), "/usr/local/bin/sluice", shared(t, bench.sluice))
	file := filepath.Join(dir, "sluice.service")
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, tool(t, "systemd-analyze"), "verify", "--man=no", file)
	run(t, tool(t, "systemd-analyze"), "security", "--offline=true", "--threshold=20", file)
}

// Sluice ends when its bucket does not answer at start, in less than a second. systemd gives up for good after five starts in
// ten seconds, unless the unit says otherwise.
func TestTheUnitIsStartedAgainForAsLongAsItTakes(t *testing.T) {
	b, err := os.ReadFile("../deploy/systemd/sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	unit, service, _ := strings.Cut(string(b), "[Service]")
	if !strings.Contains(unit, "\nStartLimitIntervalSec=0\n") || !strings.Contains(service, "\nRestart=on-failure\n") {
		t.Error("a bucket that is away for ten seconds would end the service until somebody starts it")
	}
}

// Sluice refuses a file with a mistake in its log only: to whoever reloads the unit, that has to be an error.
func TestTheUnitIsNotReloadedWithAMistake(t *testing.T) {
	b, err := os.ReadFile("../deploy/systemd/sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	reload := regexp.MustCompile(`(?m)^ExecReload=(.*)$`).FindAllStringSubmatch(string(b), -1)
	if len(reload) != 2 || !strings.Contains(reload[0][1], "check-config") || !strings.Contains(reload[1][1], "kill -HUP") {
		t.Errorf("a reload does %q", reload)
	}
}

// A unit that is ordered after this one may push at once: that Sluice says when it listens is of no use to Type=simple.
func TestTheUnitHasStartedWhenSluiceListens(t *testing.T) {
	b, err := os.ReadFile("../deploy/systemd/sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "\nType=notify\n") {
		t.Error("systemctl start would return before Sluice listens, and also where it cannot")
	}
}
