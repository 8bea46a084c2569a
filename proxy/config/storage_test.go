package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// config.yml can set only one driver, so the others stand there as comments. They name every key, and are valid.
func TestTheExplainedDriversAreWhole(t *testing.T) {
	b, err := os.ReadFile("../../config.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name, driver := range map[string]reflect.Type{"s3": reflect.TypeFor[S3](), "gcs": reflect.TypeFor[GCS](), "azure": reflect.TypeFor[Azure]()} {
		text := regexp.MustCompile(`(?m)^  #  ` + name + `:\n(?:  #    .*\n)+`).FindString(string(b)) // its keys are indented further
		text = "storage:\n" + strings.ReplaceAll(text, "  #  ", "  ")
		c := Default()
		d := &decoder{source: source{keys: map[string]place{}}}
		d.document(c, []byte(text))
		if err := append(d.mistakes, c.mistakes()...).err(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		if c.Storage.Driver() != name || !c.Storage.Shared() {
			t.Errorf("%s: the driver is %q, shared %v", name, c.Storage.Driver(), c.Storage.Shared())
		}
		for _, key := range keysOf(driver) {
			if _, ok := d.source.keys["storage."+name+"."+key]; !ok {
				t.Errorf("config.yml does not explain storage.%s.%s", name, key)
			}
		}
	}
}

func TestS3IsHTTPSWithCurrentSignaturesUnlessItIsToldOtherwise(t *testing.T) {
	for text, want := range map[string][2]bool{
		"":                {true, true},
		", secure: false": {false, true},
		", v4auth: false, secretkey: hunter2, accesskey: a": {true, false},
	} {
		c, err := Parse("x.yml", []byte("storage: {s3: {bucket: b, region: eu-west-1"+text+"}}\n"))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := [2]bool{c.Storage.S3.Secure, c.Storage.S3.V4Auth}; got != want {
			t.Errorf("%q: secure, v4auth %v, want %v", text, got, want)
		}
		if s := fmt.Sprintf("%+v", *c.Storage.S3); strings.Contains(s, "hunter2") {
			t.Errorf("the secret is printed: %s", s)
		}
	}
}

func TestSealKeysComeFromTheEnvironmentOrAFile(t *testing.T) {
	const old, young, file = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e20", "seal_keys: [000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e21]\n"
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(young+"\n"+old+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Override{{"seal-keys", young + ", " + old, "SLUICE_SEAL_KEYS"}, {"seal-keys-file", path, "SLUICE_SEAL_KEYS_FILE"}} {
		c, err := Parse("f.yml", []byte(file), o)
		if err != nil {
			t.Error(err)
			continue
		}
		if keys := c.Keys(); len(keys) != 2 || keys[0][31] != 0x20 || keys[1][31] != 0x1f {
			t.Errorf("%s: %d keys, or not in their order", o.From, len(keys))
		}
	}
	for want, overrides := range map[string][]Override{
		"SLUICE_SEAL_KEYS: seal_keys[1]: is the same key as seal_keys[0]; take one of them out":                                {{"seal-keys", old + "," + old, "SLUICE_SEAL_KEYS"}},
		"SLUICE_SEAL_KEYS: seal_keys[0]: not a key of 32 bytes in base64 or hex; make one with: openssl rand -base64 32":       {{"seal-keys", "hunter2", "SLUICE_SEAL_KEYS"}},
		"SLUICE_SEAL_KEYS: seal_keys: holds no key; make one with: openssl rand -base64 32":                                    {{"seal-keys", " ,", "SLUICE_SEAL_KEYS"}},
		"SLUICE_SEAL_KEYS_FILE: seal_keys: and SLUICE_SEAL_KEYS are both set; keep one of them":                                {{"seal-keys", old, "SLUICE_SEAL_KEYS"}, {"seal-keys-file", path, "SLUICE_SEAL_KEYS_FILE"}},
		"SLUICE_SEAL_KEYS_FILE: seal_keys: open " + path + "x: no such file or directory; name a file with a key in each line": {{"seal-keys-file", path + "x", "SLUICE_SEAL_KEYS_FILE"}},
	} {
		if _, err := Parse("f.yml", []byte(file), overrides...); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
