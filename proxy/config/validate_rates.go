package config

import (
	"maps"
	"slices"
	"strings"
)

// maxRate is more than any registry's quota.
const maxRate = 100_000

// RateKeys are the keys of upstreams[].rates: the actions that Amazon ECR has quotas for, and those
// that it may refuse all the same.
func RateKeys() []string {
	return []string{
		"batch_check_layer_availability", "batch_delete_image", "batch_get_image", "complete_layer_upload",
		"get_download_url_for_layer", "initiate_layer_upload", "list_image_referrers", "list_images", "put_image", "upload_layer_part",
	}
}

func (v *validator) rates(at string, u Upstream) {
	for _, name := range slices.Sorted(maps.Keys(u.Rates)) {
		key, rate := at+".rates."+name, u.Rates[name]
		if !slices.Contains(RateKeys(), name) {
			if near := Nearest(name, RateKeys()); near != "" {
				v.add(key, "unknown action; did you mean %q?", near)
			} else {
				v.add(key, "unknown action; known here: %s", strings.Join(RateKeys(), ", "))
			}
			continue
		}
		if rate < 0 || rate > maxRate {
			v.add(key, "%d is no rate; write requests per second, at most %d, or 0 for no limit", rate, maxRate)
		}
	}
}
