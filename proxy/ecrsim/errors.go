package ecrsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// failure is one refusal in the words of both APIs: a status, code and message of the registry's, and an exception of the
// control plane's.
type failure struct {
	status    int
	code      string
	message   string
	exception string // "" is not known by the control plane
	plain     bool   // the message is the body
	cut       bool   // no answer at all
}

func (f *failure) Error() string { return f.code + ": " + f.message }

// or lets a switch choose another status and code.
func (f *failure) or(a Answer) *failure {
	f.status, f.code = cmp.Or(a.Status, f.status), cmp.Or(a.Code, f.code)
	return f
}

// with lets a switch choose another status.
func (f *failure) with(status int) *failure { return f.or(Answer{Status: status}) }

// write answers a request to the registry. A HEAD has the length of what a GET would say, and no body.
func (f *failure) write(w http.ResponseWriter) {
	if f.cut {
		panic(http.ErrAbortHandler)
	}
	body, contentType := []byte(f.message), "text/plain; charset=utf-8"
	if !f.plain {
		type e struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		body, _ = json.Marshal(map[string][]e{"errors": {{f.code, f.message}}})
		contentType = "application/json; charset=utf-8"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	_, _ = w.Write(body)
}

// The refusals, in the order of what they are about. The texts are those that users have pasted into reports.

func notAuthorized() *failure {
	return &failure{status: 401, message: "Not Authorized\n", plain: true}
}

func tokenExpired() *failure {
	return &failure{status: 403, code: "DENIED", message: "Your authorization token has expired. Reauthenticate and try again."}
}

func tokenForeign() *failure {
	return &failure{status: 403, code: "DENIED", message: "Your Authorization Token is invalid."}
}

func (s *Simulator) denied(who Principal, action, repo string) *failure {
	resource := "*"
	if repo != "" {
		resource = s.arn(repo)
	}
	return &failure{status: 403, code: "DENIED", exception: "AccessDeniedException", message: fmt.Sprintf(
		"User: arn:aws:iam::%s:user/%s is not authorized to perform: ecr:%s on resource: %s because no identity-based policy allows the ecr:%[3]s action",
		s.account, who.Name, action, resource)}
}

func throttled() *failure {
	return &failure{status: 429, code: "TOOMANYREQUESTS", exception: "ThrottlingException", message: "Rate exceeded"}
}

func (s *Simulator) noRepository(name string) *failure {
	return &failure{status: 404, code: "NAME_UNKNOWN", exception: "RepositoryNotFoundException", message: fmt.Sprintf(
		"The repository with name '%s' does not exist in the registry with id '%s'", name, s.account)}
}

// invalid is what ECR makes of every parameter that it does not like, with the status of a method that is not allowed.
func invalid(parameter, why string) *failure {
	return &failure{status: 405, code: "UNSUPPORTED", exception: "InvalidParameterException", message: fmt.Sprintf(
		"Invalid parameter at '%s' failed to satisfy constraint: '%s'", parameter, why)}
}

func unparsable() *failure { return invalid("ImageManifest", "Invalid JSON syntax") }

func unsupported() *failure {
	return &failure{status: 405, code: "UNSUPPORTED", message: "The operation is unsupported."}
}

func notFoundPage() *failure {
	return &failure{status: 404, message: "404 page not found\n", plain: true}
}

func noImage() *failure {
	return &failure{status: 404, code: "MANIFEST_UNKNOWN", exception: "ImageNotFoundException", message: "Requested image not found"}
}

func immutable(tag, repo string, old bool) *failure {
	because := "tag"
	if old {
		because = "repository"
	}
	return &failure{status: 400, code: "TAG_INVALID", exception: "ImageTagAlreadyExistsException", message: fmt.Sprintf(
		"The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the %s is immutable.", tag, repo, because)}
}

func (s *Simulator) otherDigest(digest, repo string) *failure {
	return &failure{status: 400, code: "MANIFEST_INVALID", exception: "ImageDigestDoesNotMatchException", message: fmt.Sprintf(
		"The image with digest '%s' in repository '%s' and registry ID '%s' does not match the image digest that Amazon ECR has calculated.", digest, repo, s.account)}
}

func missingLayer(digest string) *failure {
	return &failure{status: 400, code: "MANIFEST_BLOB_UNKNOWN", exception: "LayersNotFoundException", message: fmt.Sprintf(
		"The specified layers could not be found: %s", digest)}
}

func missingChild(digest string) *failure {
	return &failure{status: 400, code: "MANIFEST_BLOB_UNKNOWN", exception: "ReferencedImagesNotFoundException", message: fmt.Sprintf(
		"The manifest list is referencing an image that does not exist: %s", digest)}
}

func missingSubject(digest string) *failure {
	return &failure{status: 400, code: "MANIFEST_BLOB_UNKNOWN", exception: "ReferencedImagesNotFoundException", message: fmt.Sprintf(
		"The subject %s does not exist", digest)}
}

// tooMany looks like a missing right: https://github.com/aws/containers-roadmap/issues/2159.
func (s *Simulator) tooMany(what, repo string, limit int) *failure {
	return &failure{status: 403, code: "DENIED", exception: "LimitExceededException", message: fmt.Sprintf(
		"The repository with name '%s' in registry with id '%s' already has the maximum allowed number of %s which is '%d'", repo, s.account, what, limit)}
}

func referencedByIndex() *failure {
	return &failure{
		status: 400, code: "DENIED", exception: "ImageReferencedByManifestList",
		message: "Requested image referenced by manifest list",
	}
}

func noLayer() *failure {
	return &failure{status: 404, code: "BLOB_UNKNOWN", exception: "LayersNotFoundException", message: "The specified layer does not exist"}
}

func inaccessibleLayer() *failure {
	return &failure{
		status: 404, code: "BLOB_UNKNOWN", exception: "LayerInaccessibleException",
		message: "The specified layer is not available because it is not associated with an image. Unassociated image layers may be cleaned up at any time",
	}
}

func noUpload() *failure {
	return &failure{
		status: 404, code: "BLOB_UPLOAD_UNKNOWN", exception: "UploadNotFoundException",
		message: "The upload could not be found, or the specified upload ID is not valid for this repository",
	}
}

func otherLayerDigest() *failure {
	return &failure{
		status: 400, code: "BLOB_UPLOAD_INVALID", exception: "InvalidLayerException",
		message: "None of the provided layer digests match the calculated layer digest",
	}
}

func smallPart() *failure {
	return &failure{
		status: 400, code: "BLOB_UPLOAD_INVALID", exception: "LayerPartTooSmallException",
		message: "All layer parts except the last part should be at least 5MB",
	}
}

func otherRange(stored int64) *failure {
	return &failure{
		status: 416, code: "BLOB_UPLOAD_INVALID", exception: "InvalidLayerPartException",
		message: fmt.Sprintf("The layer part is not consecutive with the last one, which ended at %d", stored),
	}
}

func layerLimit(what string, limit int64) *failure {
	return &failure{
		status: 400, code: "BLOB_UPLOAD_INVALID", exception: "LimitExceededException",
		message: fmt.Sprintf("The layer exceeds the limit on %s, which is %d", what, limit),
	}
}

func emptyUpload() *failure {
	return &failure{status: 500, code: "UNKNOWN", exception: "EmptyUploadException", message: "The specified layer upload does not contain any layer parts"}
}

func broken(doing string, err error) *failure {
	return &failure{status: 500, code: "UNKNOWN", exception: "ServerException", message: "the double failed to " + doing + ": " + err.Error()}
}
