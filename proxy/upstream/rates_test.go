package upstream

import (
	"strings"
	"testing"
)

func TestRatesOfAHost(t *testing.T) {
	of := func(host string, configured map[string]int) [actions]int {
		t.Helper()
		got, err := rates(host, configured)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := of("registry.example", nil); got != [actions]int{} {
		t.Errorf("a registry that is not ECR: %v", got)
	}
	if got := of("registry.example", map[string]int{"list_images": 5}); got != [actions]int{listImages: 5} {
		t.Errorf("configured: %v", got)
	}
	if got := of("public.ecr.aws", nil); got != ecrPublicRates {
		t.Errorf("ECR Public: %v", got)
	}
	ecr := of("123456789012.dkr.ecr.eu-west-1.amazonaws.com:443", map[string]int{"put_image": 0, "batch_get_image": 7})
	if ecr[putImage] != 0 || ecr[batchGetImage] != 7 || ecr[initiateLayerUpload] != 100 {
		t.Errorf("ECR: %v", ecr)
	}
	for _, bad := range []map[string]int{{"putImage": 1}, {"": 1}, {"put_image": -1}, {"put_image": maxRate + 1}} {
		if _, err := New(Options{URL: ecrURL, Credentials: Anonymous, Rates: bad}); err == nil || !strings.Contains(err.Error(), "amazonaws.com") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestWhatARequestCountsAs(t *testing.T) {
	for _, tt := range []struct {
		request string
		body    bool
		want    [2]action
	}{
		{"HEAD app/blobs/sha256:x", false, [2]action{batchCheckLayerAvailability}},
		{"GET app/blobs/sha256:x", false, [2]action{getDownloadURLForLayer}},
		{"POST app/blobs/uploads/", false, [2]action{initiateLayerUpload}},
		{"PATCH app/blobs/uploads/1", true, [2]action{uploadLayerPart}},
		{"PUT app/blobs/uploads/1", true, [2]action{uploadLayerPart, completeLayerUpload}},
		{"PUT app/blobs/uploads/1", false, [2]action{completeLayerUpload}},
		{"GET app/blobs/uploads/1", false, [2]action{}},
		{"PUT app/manifests/1", true, [2]action{putImage}},
		{"HEAD app/manifests/1", false, [2]action{batchGetImage}},
		{"GET app/manifests/sha256:x", false, [2]action{batchGetImage}},
		{"DELETE app/manifests/sha256:x", false, [2]action{batchDeleteImage}},
		{"GET app/tags/list", false, [2]action{listImages}},
		{"GET app/referrers/sha256:x", false, [2]action{listImageReferrers}},
		{"PUT blobs/uploads/manifests/1", true, [2]action{putImage}},
		{"POST manifests/app/blobs/uploads/", false, [2]action{initiateLayerUpload}},
		{"GET _catalog", false, [2]action{}},
		{"GET ", false, [2]action{}},
	} {
		method, path, _ := strings.Cut(tt.request, " ")
		if got := actionsOf(method, "/v2/"+path, tt.body); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.request, got, tt.want)
		}
	}
	if got := actionsOf("GET", "/somewhere/else", false); got != [2]action{} {
		t.Errorf("another path: %v", got)
	}
}
