package ecrsim

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// targetPrefix starts X-Amz-Target, which names the operation in AWS JSON 1.1.
const targetPrefix = "AmazonEC2ContainerRegistry_V20150921."

// IsControlPlane says whether a request is one to the control plane, for those who serve both on one address.
func IsControlPlane(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
}

// request is one to the control plane that has been let in.
type request struct {
	*Simulator
	sw   *Switches
	who  Principal
	body []byte
}

// read decodes the parameters. Members that the double does not look at are left out, as in any other JSON of AWS.
func read[T any](q *request) (T, *failure) {
	var in T
	if err := json.Unmarshal(q.body, &in); err != nil {
		return in, &failure{status: 400, exception: "SerializationException", message: "the body is not what the operation takes: " + err.Error()}
	}
	return in, nil
}

// operations are those that the double knows. IAM and the quotas call them by these names.
func operations() map[string]func(*request) (any, *failure) {
	return map[string]func(*request) (any, *failure){
		"GetAuthorizationToken":               (*request).getAuthorizationToken,
		"CreateRepository":                    (*request).createRepository,
		"DescribeRepositories":                (*request).describeRepositories,
		"DeleteRepository":                    (*request).deleteRepository,
		"PutImageTagMutability":               (*request).putImageTagMutability,
		"PutLifecyclePolicy":                  (*request).putLifecyclePolicy,
		"GetLifecyclePolicy":                  (*request).getLifecyclePolicy,
		"SetRepositoryPolicy":                 (*request).setRepositoryPolicy,
		"GetRepositoryPolicy":                 (*request).getRepositoryPolicy,
		"TagResource":                         (*request).tagResource,
		"ListTagsForResource":                 (*request).listTagsForResource,
		"PutAccountSetting":                   (*request).putAccountSetting,
		"GetAccountSetting":                   (*request).getAccountSetting,
		"CreateRepositoryCreationTemplate":    (*request).createTemplate,
		"DescribeRepositoryCreationTemplates": (*request).describeTemplates,
		"ListImages":                          (*request).listImages,
		"DescribeImages":                      (*request).describeImages,
		"BatchGetImage":                       (*request).batchGetImage,
		"BatchDeleteImage":                    (*request).batchDeleteImage,
		"PutImage":                            (*request).putImage,
		"ListImageReferrers":                  (*request).listImageReferrers,
		"BatchCheckLayerAvailability":         (*request).batchCheckLayerAvailability,
		"GetDownloadUrlForLayer":              (*request).getDownloadURLForLayer,
	}
}

const maxControlBody = 6 << 20 // PutImage carries a manifest of 4 MiB, with escapes

// ControlPlane is the API that the AWS SDKs and the AWS CLI call: AWS JSON 1.1 on POST /. The key of a signature must be
// known; the signature is not computed.
func (s *Simulator) ControlPlane() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusWriter{ResponseWriter: w}
		action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
		defer func() { s.log.Debug("control plane", "action", action, "status", rec.status) }()
		out, f := s.operate(w, r, action)
		status := http.StatusOK
		if f != nil {
			if f.cut {
				panic(http.ErrAbortHandler)
			}
			out, status = map[string]string{"__type": f.exception, "message": f.message}, controlStatus(f)
			w.Header().Set("X-Amzn-Errortype", f.exception)
		}
		b, err := json.Marshal(out)
		if err != nil {
			status = http.StatusInternalServerError
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		rec.WriteHeader(status)
		_, _ = rec.Write(b)
	})
}

// controlStatus: AWS JSON answers 400 to all that is the client's doing, whatever the registry API says.
func controlStatus(f *failure) int {
	if f.status >= http.StatusInternalServerError {
		return f.status
	}
	return http.StatusBadRequest
}

func (s *Simulator) operate(w http.ResponseWriter, r *http.Request, action string) (any, *failure) {
	sw := s.switches.Load()
	if _, f := s.befall(w, r, sw, action, ""); f != nil {
		if f.exception == "" {
			f.exception = "ServerException"
		}
		return nil, f
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
	if err != nil {
		return nil, &failure{status: 400, exception: "SerializationException", message: "cannot read the body"}
	}
	do, known := operations()[action]
	if r.Method != http.MethodPost || !known {
		return nil, &failure{status: 400, exception: "UnknownOperationException", message: "the double does not know the operation " + action}
	}
	who, f := s.signer(r)
	if f != nil {
		return nil, f
	}
	var named struct {
		RepositoryName string `json:"repositoryName"`
	}
	_ = json.Unmarshal(body, &named) // what is wrong with it, the operation says
	if f := s.admit(who, action, named.RepositoryName, sw); f != nil {
		return nil, f
	}
	return do(&request{s, sw, who, body})
}

var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 .*\bCredential=([^/,]+)/\d{8}/([^/,]+)/ecr/aws4_request\b`)

// signer is whose key signed a request, by Signature Version 4.
func (s *Simulator) signer(r *http.Request) (Principal, *failure) {
	m := credential.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return Principal{}, &failure{status: 400, exception: "MissingAuthenticationTokenException", message: "Missing Authentication Token"}
	}
	p, ok := s.principals[m[1]]
	switch {
	case !ok:
		return Principal{}, &failure{status: 400, exception: "UnrecognizedClientException", message: "The security token included in the request is invalid."}
	case m[2] != s.region:
		return Principal{}, &failure{status: 400, exception: "InvalidSignatureException", message: "Credential should be scoped to a valid region, not '" + m[2] + "'."}
	}
	return p, nil
}
