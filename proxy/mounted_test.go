package proxy_test

import (
	"context"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// I6: a statement that the client mounted, from a repository whose attestations are upstream, is not here, and yet the
// original is there to be read: a build that pushes by digest is combined by it.
func TestAnOriginalWhoseStatementsWereMountedIsReadBack(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		for _, form := range forms {
			t.Run(string(act)+"/"+string(form), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Platforms: []string{"linux/amd64"}})
				up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
				newRig(t, up, action(filters.Forward)).push(proxytest.BuildKit, "lib", "1", tree)
				r := newRig(t, up, action(act))
				// As BuildKit and Docker do it with what they have pushed to lib before.
				if _, err := proxytest.Docker29(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", ByDigest: true, Tree: tree, MountFrom: "lib"}); err != nil {
					t.Fatal(err)
				}
				r.direct(http.MethodHead, "/v2/app/blobs/"+tree.Statements()[0].Digest, nil).want(t, http.StatusOK) // or this proves nothing
				back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
				if err == nil {
					err = back.Equal(tree)
				}
				if err != nil {
					t.Error(err)
				}
				if _, err := proxytest.ImagetoolsCreate(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Sources: []proxytest.Source{{Repository: "app", Reference: tree.Digest()}}}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
