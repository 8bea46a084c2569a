package proxy_test

import (
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// I7: what on_storage_error sent to Amazon ECR in an attestation's place is there for a client that looks, and is not given
// back, so that nobody can read what is pushed then. Whoever finds that out must not find it out each time.
func TestWhatECRDoesNotGiveBackIsSentAgain(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		t.Run(client.Name, func(t *testing.T) {
			disk := newFullDisk()
			r := newAWSRig(t, nil, storage(disk), action(filters.Strip), onStorageError(config.StorageErrorForward))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			disk.fill("")
			for _, b := range tree.Statements() {
				r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(t, http.StatusCreated)
			}
			disk.empty()
			for range 2 {
				if err := tryPush(r.rig, client.Push, tree); err == nil {
					r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...)
				}
			}
			if err := tryPush(r.rig, client.Push, tree); err != nil {
				t.Fatalf("the push fails each time: %v", err)
			}
			back, err := proxytest.PullAll(t.Context(), r.url(), "app", tree.Digest())
			if err == nil {
				err = back.Equal(tree)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
