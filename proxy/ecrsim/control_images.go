package ecrsim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// imageID is how the API names an image.
type imageID struct {
	ImageDigest string `json:"imageDigest,omitempty"`
	ImageTag    string `json:"imageTag,omitempty"`
}

type imageFailure struct {
	ImageID       imageID `json:"imageId"`
	FailureCode   string  `json:"failureCode"`
	FailureReason string  `json:"failureReason"`
}

// paging is the part of the input that lists have.
type paging struct {
	MaxResults int    `json:"maxResults"`
	NextToken  string `json:"nextToken"`
}

// paged cuts a page out of keys, which it sorts.
func paged(q *request, p paging, field string, keys []string, usual, most int, show func(string) any) (map[string]any, *failure) {
	if p.MaxResults < 0 || p.MaxResults > most {
		return nil, invalid("maxResults", fmt.Sprintf("Member must have value less than or equal to %d", most))
	}
	keys = slices.Sorted(slices.Values(keys))
	cur := cursor{Of: field, Size: or(p.MaxResults, usual)}
	if p.NextToken != "" {
		var f *failure
		if cur, f = q.unseal(p.NextToken, field); f != nil {
			return nil, f
		}
		cur.Size = or(p.MaxResults, cur.Size)
	}
	part, more := page(keys, cur)
	shown := make([]any, len(part))
	for i, k := range part {
		shown[i] = show(k)
	}
	out := map[string]any{field: shown}
	if more {
		out["nextToken"] = q.seal(cursor{field, part[len(part)-1], cur.Size})
	}
	return out, nil
}

// images is the input of operations on images.
type images struct {
	RepositoryName string    `json:"repositoryName"`
	ImageIDs       []imageID `json:"imageIds"`
	Filter         struct {
		TagStatus string `json:"tagStatus"`
	} `json:"filter"`
	paging
}

func (in images) wants(tagged bool) bool {
	switch in.Filter.TagStatus {
	case "TAGGED":
		return tagged
	case "UNTAGGED":
		return !tagged
	}
	return true
}

func (q *request) images() (images, *repository, *failure) {
	in, f := read[images](q)
	if f != nil {
		return in, nil, f
	}
	r, f := q.repository(in.RepositoryName)
	return in, r, f
}

// listImages has one entry per tag, and one per untagged image.
func (q *request) listImages() (any, *failure) {
	q.mu.Lock()
	defer q.mu.Unlock()
	in, r, f := q.images()
	if f != nil {
		return nil, f
	}
	ids := map[string]imageID{}
	for _, i := range r.listed() {
		tags := r.tagsOf(i.digest)
		if !in.wants(len(tags) > 0) {
			continue
		}
		for _, t := range tags {
			ids[i.digest+" "+t] = imageID{i.digest, t}
		}
		if len(tags) == 0 {
			ids[i.digest] = imageID{ImageDigest: i.digest}
		}
	}
	return paged(q, in.paging, "imageIds", slices.Collect(maps.Keys(ids)), 100, 1000, func(k string) any { return ids[k] })
}

// describeImages has one entry per image: an index, each of its children, the attestation manifests too.
func (q *request) describeImages() (any, *failure) {
	q.mu.Lock()
	defer q.mu.Unlock()
	in, r, f := q.images()
	if f != nil {
		return nil, f
	}
	var digests []string
	for _, id := range in.ImageIDs {
		i, failed := q.identified(r, id)
		if failed != nil {
			return nil, &failure{status: 400, exception: "ImageNotFoundException", message: fmt.Sprintf(
				"The image with imageId {imageDigest:'%s', imageTag:'%s'} does not exist within the repository with name '%s' in the registry with id '%s'",
				id.ImageDigest, id.ImageTag, r.name, q.account)}
		}
		digests = append(digests, i.digest)
	}
	if len(in.ImageIDs) == 0 {
		for _, i := range r.listed() {
			if in.wants(len(r.tagsOf(i.digest)) > 0) {
				digests = append(digests, i.digest)
			}
		}
	}
	return paged(q, in.paging, "imageDetails", digests, 100, 1000, func(d string) any { return q.detail(r, r.images[d]) })
}

func (q *request) detail(r *repository, i *image) map[string]any {
	d := map[string]any{
		"registryId": q.account, "repositoryName": r.name, "imageDigest": i.digest, "imageSizeInBytes": i.size,
		"imagePushedAt": seconds(i.pushed), "imageManifestMediaType": i.mediaType, "imageStatus": "ACTIVE",
	}
	if tags := r.tagsOf(i.digest); len(tags) > 0 {
		d["imageTags"] = tags
	}
	if i.artifactType != "" {
		d["artifactMediaType"] = i.artifactType
	}
	if i.subject != "" {
		d["subjectManifestDigest"] = i.subject
	}
	return d
}

// identified finds an image by tag, digest, or both.
func (q *request) identified(r *repository, id imageID) (*image, *imageFailure) {
	fail := func(code, reason string) (*image, *imageFailure) {
		return nil, &imageFailure{ImageID: id, FailureCode: code, FailureReason: reason}
	}
	switch {
	case id.ImageDigest == "" && id.ImageTag == "":
		return fail("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null")
	case id.ImageDigest != "" && !strings.HasPrefix(id.ImageDigest, "sha256:"):
		return fail("InvalidImageDigest", "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	case id.ImageTag != "" && !tagPattern.MatchString(id.ImageTag):
		return fail("InvalidImageTag", "Invalid request parameters: image tag should satisfy the regex '[a-zA-Z0-9-_.]+'")
	}
	i, f := q.find(r, id.ImageTag, id.ImageDigest)
	switch {
	case f != nil:
		return fail("ImageNotFound", "Requested image not found")
	case id.ImageDigest != "" && id.ImageDigest != i.digest:
		return fail("ImageTagDoesNotMatchDigest", "Requested image tag does not match the image digest")
	}
	return i, nil
}

func (q *request) shown(r *repository, i *image, tag string, accept []string) map[string]any {
	body, mediaType := i.body, i.mediaType
	if tag != "" {
		body, mediaType = convert(body, mediaType, accept)
	}
	return map[string]any{
		"registryId": q.account, "repositoryName": r.name, "imageId": imageID{i.digest, tag},
		"imageManifest": string(body), "imageManifestMediaType": mediaType,
	}
}

func (q *request) batchGetImage() (any, *failure) {
	accept, f := read[struct {
		AcceptedMediaTypes []string `json:"acceptedMediaTypes"`
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	in, r, f := q.images()
	if f != nil {
		return nil, f
	}
	found, failures := []any{}, []imageFailure{}
	for _, id := range in.ImageIDs {
		i, failed := q.identified(r, id)
		if failed != nil {
			failures = append(failures, *failed)
			continue
		}
		found = append(found, q.shown(r, i, id.ImageTag, accept.AcceptedMediaTypes))
	}
	return map[string]any{"images": found, "failures": failures}, nil
}

func (q *request) batchDeleteImage() (any, *failure) {
	q.mu.Lock()
	defer q.mu.Unlock()
	in, r, f := q.images()
	if f != nil {
		return nil, f
	}
	deleted, failures := []imageID{}, []imageFailure{}
	for _, id := range in.ImageIDs {
		i, failed := q.identified(r, id)
		if failed == nil {
			if f := r.remove(id.ImageTag, i.digest); f != nil {
				failed = &imageFailure{id, f.exception, f.message}
			}
		}
		if failed != nil {
			failures = append(failures, *failed)
			continue
		}
		deleted = append(deleted, imageID{i.digest, id.ImageTag})
	}
	return map[string]any{"imageIds": deleted, "failures": failures}, nil
}

// putImage without a media type takes none from an OCI document that does not carry one:
// https://github.com/aws/containers-roadmap/issues/1873.
func (q *request) putImage() (any, *failure) {
	in, f := read[struct {
		RepositoryName         string `json:"repositoryName"`
		ImageManifest          string `json:"imageManifest"`
		ImageManifestMediaType string `json:"imageManifestMediaType"`
		ImageTag               string `json:"imageTag"`
		ImageDigest            string `json:"imageDigest"`
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, f := q.repository(in.RepositoryName)
	if f != nil {
		return nil, f
	}
	before := r.tagged[in.ImageTag]
	i, f := q.put(r, []byte(in.ImageManifest), in.ImageManifestMediaType, in.ImageTag, in.ImageDigest, q.sw)
	if f != nil {
		return nil, f
	}
	if in.ImageTag != "" && before == i.digest {
		return nil, &failure{status: 400, exception: "ImageAlreadyExistsException", message: fmt.Sprintf(
			"Image with digest '%s' and tag '%s' already exists in the repository with name '%s' in registry with id '%s'", i.digest, in.ImageTag, r.name, q.account)}
	}
	return map[string]any{"image": q.shown(r, i, in.ImageTag, nil)}, nil
}

func (q *request) listImageReferrers() (any, *failure) {
	in, f := read[struct {
		RepositoryName string `json:"repositoryName"`
		SubjectID      struct {
			ImageDigest string `json:"imageDigest"`
		} `json:"subjectId"`
		Filter struct {
			ArtifactTypes  []string `json:"artifactTypes"`
			ArtifactStatus string   `json:"artifactStatus"`
		} `json:"filter"`
		paging
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, f := q.repository(in.RepositoryName)
	if f != nil {
		return nil, f
	}
	var digests []string
	for _, i := range r.referrers(in.SubjectID.ImageDigest) {
		status := slices.Contains([]string{"", "ACTIVE", "ANY"}, in.Filter.ArtifactStatus) // nothing is ever archived here
		if status && (len(in.Filter.ArtifactTypes) == 0 || slices.Contains(in.Filter.ArtifactTypes, i.artifactType)) {
			digests = append(digests, i.digest)
		}
	}
	return paged(q, in.paging, "referrers", digests, 20, 50, func(d string) any {
		i := r.images[d]
		return map[string]any{
			"digest": d, "mediaType": i.mediaType, "size": len(i.body), "artifactType": i.artifactType,
			"annotations": i.annotations, "artifactStatus": "ACTIVE",
		}
	})
}

func (q *request) batchCheckLayerAvailability() (any, *failure) {
	in, f := read[struct {
		RepositoryName string   `json:"repositoryName"`
		LayerDigests   []string `json:"layerDigests"`
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, f := q.repository(in.RepositoryName)
	if f != nil {
		return nil, f
	}
	layers := []any{}
	for _, d := range in.LayerDigests {
		l := map[string]any{"layerDigest": d, "layerAvailability": "UNAVAILABLE"}
		if have := r.layers[d]; have != nil && (have.references > 0 || !q.sw.HideUnreferenced) {
			l["layerAvailability"], l["layerSize"] = "AVAILABLE", have.size
		}
		layers = append(layers, l)
	}
	return map[string]any{"layers": layers, "failures": []any{}}, nil
}

func (q *request) getDownloadURLForLayer() (any, *failure) {
	in, f := read[struct {
		RepositoryName string `json:"repositoryName"`
		LayerDigest    string `json:"layerDigest"`
	}](q)
	if f != nil {
		return nil, f
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	r, f := q.repository(in.RepositoryName)
	if f != nil {
		return nil, f
	}
	switch l := r.layers[in.LayerDigest]; {
	case l == nil:
		return nil, noLayer()
	case l.references == 0:
		return nil, inaccessibleLayer()
	}
	return map[string]any{"downloadUrl": q.signed(r.name, in.LayerDigest), "layerDigest": in.LayerDigest}, nil
}
