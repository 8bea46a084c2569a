package upstream

import (
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestARefusalDoesNotRepeatWhatItRefuses(t *testing.T) {
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	long := strings.Repeat("x", maxUnsaid)
	for _, tt := range []struct {
		name, authorization string
		status              int
		body, want          string
	}{
		{"a token", "Bearer abcdefgh.ijk", 401, "no: Bearer abcdefgh.ijk, abcdefgh.ijk", "no: Bearer ************, ************"},
		{"a user and a password", basic("robot", "s3cret:word"), 403, "robot:s3cret:word is " + basic("robot", "s3cret:word"), "robot:*********** is Basic " + strings.Repeat("*", 24)},
		{"a scheme in small letters", "basic " + basic("robot", "longer-secret")[6:], 400, "longer-secret", "*************"},
		{
			"a password as JSON has it", basic("robot", `s3"cret<w>`), 403,
			`{"message":"s3\"cret\u003cw\u003e, s3\"cret<w>"}`, `{"message":"` + strings.Repeat("*", 21) + `, ` + strings.Repeat("*", 11) + `"}`,
		},
		{"a password of stars", basic("robot", "**********"), 500, "**********!", "**********!"},
		{"a password that is a word", basic("robot", "test"), 404, "test", "test"},
		{"no password", basic("robot", ""), 404, "robot is not known", "robot is not known"},
		{"what is no header of a login", "Basic !", 400, "!", "!"},
		{"a document", "Bearer abcdefgh.ijk", 200, "abcdefgh.ijk", "abcdefgh.ijk"},
		{"nobody", "", 401, "log in", "log in"},
		{"a long refusal", "Bearer abcdefgh.ijk", 400, long + "abc", long + "abc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := &http.Response{StatusCode: tt.status, Body: io.NopCloser(strings.NewReader(tt.body))}
			unsay(resp, tt.authorization)
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != tt.want {
				t.Errorf("%q, want %q (%v)", got, tt.want, err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	unsay(nil, "Bearer abcdefgh.ijk") // no answer came
}
