package upstream

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// action is what Amazon ECR calls a request: its throttles count actions, account-wide, and not
// requests (the quotas are in the ECR User Guide, "Amazon ECR service quotas"). Which verb is which action
// is read off the actions that IAM names when it refuses one.
type action uint8

const (
	noAction action = iota
	batchCheckLayerAvailability
	batchDeleteImage
	batchGetImage
	completeLayerUpload
	getDownloadURLForLayer
	initiateLayerUpload
	listImageReferrers
	listImages
	putImage
	uploadLayerPart
	actions // how many
)

// actionNames are the keys of Options.Rates.
var actionNames = [actions]string{
	batchCheckLayerAvailability: "batch_check_layer_availability",
	batchDeleteImage:            "batch_delete_image",
	batchGetImage:               "batch_get_image",
	completeLayerUpload:         "complete_layer_upload",
	getDownloadURLForLayer:      "get_download_url_for_layer",
	initiateLayerUpload:         "initiate_layer_upload",
	listImageReferrers:          "list_image_referrers",
	listImages:                  "list_images",
	putImage:                    "put_image",
	uploadLayerPart:             "upload_layer_part",
}

// ecrRates are the quotas that a private registry has unless AWS raised them, per second and region.
// Actions without a published quota are not limited.
var ecrRates = [actions]int{
	batchCheckLayerAvailability: 1000,
	batchGetImage:               2000,
	completeLayerUpload:         100,
	getDownloadURLForLayer:      3000,
	initiateLayerUpload:         100,
	putImage:                    10,
	uploadLayerPart:             500,
}

// ecrPublicRates are those of ECR Public. For InitiateLayerUpload two versions of the page say 10 and
// 200: the lower one never fails.
var ecrPublicRates = [actions]int{
	completeLayerUpload: 10,
	initiateLayerUpload: 10,
	putImage:            10,
	uploadLayerPart:     260,
}

// rates are those of the host, with what is configured laid over them; 0 is no limit.
func rates(host string, configured map[string]int) ([actions]int, error) {
	var all [actions]int
	if h, ok := ParseECRHost(host); ok && h.Public {
		all = ecrPublicRates
	} else if ok {
		all = ecrRates
	}
	for name, rate := range configured {
		i := slices.Index(actionNames[1:], name) + 1
		if i == 0 {
			return all, fmt.Errorf("upstream %s: rate %q is unknown; known are %s", host, name, strings.Join(actionNames[1:], ", "))
		}
		if rate < 0 || rate > maxRate {
			return all, fmt.Errorf("upstream %s: rate %s %d is not between 0 (no limit) and %d per second", host, name, rate, maxRate)
		}
		all[i] = rate
	}
	return all, nil
}

// actionsOf tells which actions a request is. A PUT with the last bytes of a layer is two: its bytes are a
// part, and the digest closes the upload.
func actionsOf(method, path string, body bool) [2]action {
	path, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return [2]action{}
	}
	// From the end: `manifests` and `blobs` may be components of a repository's name.
	m, b := strings.LastIndex(path, "/manifests/"), strings.LastIndex(path, "/blobs/")
	switch {
	case m > b:
		switch method {
		case http.MethodGet, http.MethodHead:
			return [2]action{batchGetImage}
		case http.MethodPut:
			return [2]action{putImage}
		case http.MethodDelete:
			return [2]action{batchDeleteImage}
		}
	case b >= 0 && strings.HasPrefix(path[b:], "/blobs/uploads/"):
		switch method {
		case http.MethodPost:
			return [2]action{initiateLayerUpload}
		case http.MethodPatch:
			return [2]action{uploadLayerPart}
		case http.MethodPut:
			if body {
				return [2]action{uploadLayerPart, completeLayerUpload}
			}
			return [2]action{completeLayerUpload}
		}
	case b >= 0:
		switch method {
		case http.MethodHead:
			return [2]action{batchCheckLayerAvailability}
		case http.MethodGet:
			return [2]action{getDownloadURLForLayer}
		}
	case strings.HasSuffix(path, "/tags/list"):
		return [2]action{listImages}
	case strings.Contains(path, "/referrers/"):
		return [2]action{listImageReferrers}
	}
	return [2]action{}
}
