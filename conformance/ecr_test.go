package conformance

import (
	"testing"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

// ecrTarget is the double of Amazon ECR, with what a suite of many repositories and manifests needs: they are created on
// push, and there are no quotas.
func ecrTarget(t *testing.T) Target {
	t.Helper()
	s := ecrsimtest.New(t, ecrsim.Options{Switches: ecrsim.Switches{
		NoThrottling: true, Templates: []ecrsim.Template{{Prefix: "ROOT"}},
	}})
	return Target{Name: "the double of Amazon ECR", URL: s.URL, Client: s.Client(), Profile: ecrProfile()}
}

// ecrProfile is where ECR deviates. Few deviations fail many cases, which upload in parts, or read back what no manifest
// refers to, on the way to what they are about.
func ecrProfile() Profile {
	const (
		byTag        = "GET by tag has no Docker-Content-Digest"
		unreferenced = "a blob that no manifest refers to cannot be read back"
		empty        = "a blob of nothing is 500"
		not405       = "says 405 UNSUPPORTED, as for every parameter that it does not like"
		longTags     = "a tag may have 300 characters"
		oneSeparator = "a name has one separator in a row"
		sha256       = "digests are SHA-256"
		otherCode    = "says BLOB_UPLOAD_INVALID or MANIFEST_INVALID"
		noPost       = "opens a session"
		patch        = "PATCH is 201; its Range is stale, and small parts are refused at the end"
		noCancel     = "a session cannot be cancelled"
		noMount      = "the account setting BLOB_MOUNTING is off"
		ignores      = "ignores the query"
		noDelete     = "a blob cannot be deleted"
		tagOrder     = "the order of tags is ECR's own"
		cursors      = "last is opaque"
	)
	return Profile{
		"Pull/Pulling manifests/Docker-Content-Digest is the digest of the manifest":        byTag,
		"Pull/Checking if content exists in the registry/HEAD and GET agree about an image": byTag,
		"Pull/Checking if content exists in the registry/HEAD and GET agree about an index": byTag,
		"Pull/Checking if content exists in the registry/HEAD and GET agree about a blob":   unreferenced,
		"Pull/Pulling blobs/a blob comes back as the bytes that were pushed":                unreferenced,
		"Pull/Pulling blobs/Range: *": unreferenced,
		"Pull/Checking if content exists in the registry/HEAD of a blob of no bytes says so":                              empty,
		"Pull/Pulling manifests/a reference outside the grammar is 400 or 404: *":                                         not405,
		"Pull/Pulling manifests/a name outside the grammar is refused: *":                                                 not405,
		"Pull/Pulling manifests/a tag outside the grammar is refused: .a":                                                 not405,
		"Pull/Pulling manifests/a tag outside the grammar is refused: -a":                                                 not405,
		"Pull/Pulling manifests/a tag outside the grammar is refused: a+b":                                                not405,
		"Pull/Pulling manifests/a tag outside the grammar is refused: a%20b":                                              not405,
		"Pull/Pulling manifests/a tag outside the grammar is refused: ttt*":                                               longTags,
		"Pull/Pulling manifests/a name of the grammar can be used: a__b":                                                  oneSeparator,
		"Pull/Pulling manifests/a name of the grammar can be used: a---b":                                                 oneSeparator,
		"Pull/Pulling manifests/a name of the grammar can be used: a0.b1_c2__d3-e4*":                                      oneSeparator,
		"Push/Pushing a blob monolithically/POST then PUT/PUT answers 201 and a URL from which the blob can be pulled":    unreferenced,
		"Push/Pushing a blob monolithically/POST then PUT/the *":                                                          unreferenced,
		"Push/Pushing a blob monolithically/POST then PUT/a blob of 2 MiB goes in one PUT":                                unreferenced,
		"Push/Pushing a blob monolithically/POST then PUT/many sessions may be open at once, and end in another order":    unreferenced,
		"Push/Pushing a blob monolithically/POST then PUT/a blob may be named by its SHA-512":                             sha256,
		"Push/Pushing a blob monolithically/POST then PUT/a body that does not match the digest is DIGEST_INVALID":        otherCode,
		"Push/Pushing a blob monolithically/POST then PUT/a digest * is 400":                                              not405,
		"Push/Pushing a blob monolithically/POST then PUT/no digest is 400":                                               not405,
		"Push/Pushing a blob monolithically/Single POST/is 201 and the blob is there, or 202 and a session that takes it": unreferenced,
		"Push/Pushing a blob monolithically/Single POST/is 201 at once":                                                   noPost,
		"Push/Pushing blobs/nothing by *":                                                                                 empty,
		"Push/Pushing blobs/*can be pulled":                                                                               unreferenced,
		"Push/Pushing blobs/* named by SHA-512 can be pulled":                                                             sha256,
		"Push/Pushing blobs/* by one PATCH * is checked against the digest":                                               patch,
		"Push/Pushing blobs/* by thirds is checked against the digest":                                                    patch,
		"Push/Pushing blobs/* by a few bytes first is checked against the digest":                                         patch,
		"Push/Pushing blobs/[^o]* by thirds, the last with the PUT is checked against the digest":                         patch,
		"Push/Pushing blobs/[^o]* by a few bytes first, the rest with the PUT is checked against the digest":              patch,
		"Push/Pushing a blob in chunks/a blob *":                                                                          patch,
		"Push/Pushing a blob in chunks/a stream needs no Content-Type":                                                    patch,
		"Push/Pushing a blob in chunks/the closing PUT answers 201 and a URL from which the blob can be pulled":           patch,
		"Push/Pushing a blob in chunks/sessions side by side keep their bytes apart":                                      patch,
		"Push/Pushing a blob in chunks/chunks of * bytes and the rest add up":                                             patch,
		"Push/Pushing a blob in chunks/after chunks of * bytes the rest may come with the PUT":                            patch,
		"Push/Pushing a blob in chunks/after a first chunk that was 416 *":                                                patch,
		"Push/Pushing a blob in chunks/after a 416 *":                                                                     patch,
		"Push/Pushing a blob in chunks/a gap is 416 *":                                                                    patch,
		"Push/Pushing a blob in chunks/out of order chunk is 416 *":                                                       patch,
		"Push/Pushing a blob in chunks/a chunk sent again to the URL before is 416 *":                                     patch,
		"Push/Pushing a blob in chunks/the status is *":                                                                   patch,
		"Push/Pushing a blob in chunks/a last chunk out of order in the PUT is 416, *":                                    patch,
		"Push/Pushing a blob in chunks/a PUT of only the last chunk, *":                                                   patch,
		"Push/Pushing a blob in chunks/the status of a session that has ended is 404":                                     patch,
		"Push/Pushing a blob in chunks/a session that has ended takes nothing more":                                       patch,
		"Push/Cancel a blob upload/*":                                                                                     noCancel,
		"API/Endpoints/an upload session that never was is a client error":                                                noCancel,
		"Push/Mounting a blob from another repository/is 201":                                                             noMount,
		"Push/Mounting a blob from another repository/works with the parameters in the other order":                       noMount,
		"Push/Mounting a blob from another repository/nothing can be mounted, or uploaded to the session":                 empty,
		"Push/Mounting a blob from another repository/* can be mounted, or uploaded to the session":                       unreferenced,
		"Push/Mounting a blob from another repository/*and a session that takes it":                                       unreferenced,
		"Push/Mounting a blob from another repository/the session after a 202 takes chunks":                               patch,
		"Push/Pushing Manifests/nothing can be the * of an artifact":                                                      empty,
		"Push/Pushing Manifests/* named by SHA-512 comes back as it is":                                                   sha256,
		"Push/Pushing Manifests/a document of an unknown type*comes back as it is":                                        unknownTypes,
		"Push/Pushing Manifests/a document of an unknown type*under several tags":                                         unknownTypes,
		"Content Management/Deleting Manifests/a document of an unknown type*":                                            unknownTypes,
		"Push/Pushing Manifests/a manifest of 20 MiB is 413":                                                              not405,
		"Push/Pushing Manifests/tags in the query are pushed":                                                             ignores,
		"Push/Pushing Manifests/what is not JSON is MANIFEST_INVALID":                                                     not405,
		"Push/Pushing Manifests/a manifest that does not match its digest is DIGEST_INVALID":                              otherCode,
		"Push/Pushing Manifests/a digest that is none is 400: *":                                                          not405,
		"Content Management/Deleting Blobs/*":                                                                             noDelete,
		"Content Discovery/Listing Tags/lists every tag in order":                                                         tagOrder,
		"Content Discovery/Listing Tags/tags that differ by case are in one of the two orders":                            tagOrder,
		"Content Discovery/Listing Tags/n *":                                                                              tagOrder,
		"Content Discovery/Listing Tags/last *":                                                                           cursors,
		"Content Discovery/Listing Tags/pages of *":                                                                       tagOrder,
		"Content Discovery/Listing Referrers/a digest that is none is 400":                                                not405,
		"API/Error Codes/POST of an upload under a name outside the grammar is NAME_INVALID":                              not405,
		"API/Error Codes/PUT of a * under a digest that is none is DIGEST_INVALID":                                        not405,
	}
}

func TestECRSimConforms(t *testing.T) { Run(t, ecrTarget(t)) }
