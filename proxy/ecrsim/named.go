package ecrsim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Named is one switch as a command line and a test know it.
type Named struct {
	Name  string
	Value string // what Set takes; "" is a switch that is on once it is named
	Usage string
	set   func(sw *Switches, value string) error
}

// AllNamed are the switches that are a word or a number, sorted by name. The others are fields of Switches alone.
func AllNamed() []Named {
	all := []Named{
		on("relative-location", "Location without scheme and host", func(s *Switches) *bool { return &s.RelativeLocation }),
		on("monolithic", "take POST ?digest= with a body", func(s *Switches) *bool { return &s.Monolithic }),
		on("true-range", "Range says what is stored", func(s *Switches) *bool { return &s.TrueRange }),
		on("small-part-cuts", "cut the connection after a small part", func(s *Switches) *bool { return &s.SmallPartCuts }),
		on("cancel-uploads", "DELETE of an upload is 204", func(s *Switches) *bool { return &s.CancelUploads }),
		on("blob-mounting", "the account setting BLOB_MOUNTING is ENABLED", func(s *Switches) *bool { return &s.BlobMounting }),
		on("anonymous-mount", "mount= without from= looks everywhere", func(s *Switches) *bool { return &s.AnonymousMount }),
		on("hide-unreferenced", "HEAD of a layer without an image is 404", func(s *Switches) *bool { return &s.HideUnreferenced }),
		on("require-media-type", "refuse OCI documents without mediaType", func(s *Switches) *bool { return &s.RequireMediaType }),
		on("refuse-subject", "refuse manifests with a subject", func(s *Switches) *bool { return &s.RefuseSubject }),
		on("refuse-empty-config", "refuse manifests with the empty config", func(s *Switches) *bool { return &s.RefuseEmptyConfig }),
		on("old-immutable-text", "say that the repository is immutable, not the tag", func(s *Switches) *bool { return &s.OldImmutableText }),
		on("accept-same-image", "the same image under its immutable tag again is 201", func(s *Switches) *bool { return &s.AcceptSameImage }),
		on("no-delete", "DELETE of a manifest is 404", func(s *Switches) *bool { return &s.NoDelete }),
		on("no-referrers", "no referrers API", func(s *Switches) *bool { return &s.NoReferrers }),
		on("no-oci-subject", "PUT of a manifest with a subject says no OCI-Subject", func(s *Switches) *bool { return &s.NoOCISubject }),
		on("no-filters-applied", "filter referrers without OCI-Filters-Applied", func(s *Switches) *bool { return &s.NoFiltersApplied }),
		on("ignore-artifact-type", "do not filter referrers", func(s *Switches) *bool { return &s.IgnoreArtifactType }),
		on("refuse-absent-subject", "refuse a subject that is not there", func(s *Switches) *bool { return &s.RefuseAbsentSubject }),
		on("no-throttling", "no quotas of calls per second", func(s *Switches) *bool { return &s.NoThrottling }),
		number("expired-token", "STATUS", "of an expired token, 403 or 401", func(s *Switches) *int { return &s.ExpiredToken }),
		number("foreign-token", "STATUS", "of a token of another region, 403 or 401", func(s *Switches) *int { return &s.ForeignToken }),
		number("bad-range", "STATUS", "of a part that does not follow the last one, 416 or 400", func(s *Switches) *int { return &s.BadRange }),
		number("cache-index", "STATUS", "of an index of blobs, 405 or 400", func(s *Switches) *int { return &s.CacheIndex }),
		number("digest-mismatch", "STATUS", "of PUT by the digest of other bytes, 400 or 405", func(s *Switches) *int { return &s.DigestMismatch }),
		number("read-after-write-reads", "N", "reads of a new manifest that are 404", func(s *Switches) *int { return &s.ReadAfterWriteReads }),
		number("referrers-page", "N", "referrers per page", func(s *Switches) *int { return &s.ReferrersPage }),
		number("images-per-repository", "N", "images per repository", func(s *Switches) *int { return &s.Limits.ImagesPerRepository }),
		answer("missing-layer", "when a manifest lists a layer that is missing", func(s *Switches) *Answer { return &s.MissingLayer }),
		answer("missing-child", "when an index lists a manifest that is missing", func(s *Switches) *Answer { return &s.MissingChild }),
		answer("absent-subject", "with refuse-absent-subject", func(s *Switches) *Answer { return &s.AbsentSubject }),
		answer("referenced-by-index", "DELETE of what an index lists", func(s *Switches) *Answer { return &s.ReferencedByIndex }),
		answer("unreferenced-get", "GET of a layer without an image", func(s *Switches) *Answer { return &s.UnreferencedGet }),
		duration("token-life", "how long a token is valid", func(s *Switches) *time.Duration { return &s.TokenLife }),
		duration("read-after-write-gap", "how long a new manifest is 404", func(s *Switches) *time.Duration { return &s.ReadAfterWriteGap }),
		{"rate", "ACTION:N", "calls per second of an action, such as PutImage:10", setRate},
		{"deny", "ACTION", "deny an action to everybody, such as ecr:BatchGetImage", func(s *Switches, v string) error {
			s.Deny = append(s.Deny, v)
			return nil
		}},
		{"create-on-push", "PREFIX", "create repositories below PREFIX, ROOT for all, when they are pushed to", func(s *Switches, v string) error {
			s.Templates = append(s.Templates, Template{Prefix: v})
			return nil
		}},
		{"cut", "ACTION:BYTES", "cut the first call of an action after so many bytes of its body", func(s *Switches, v string) error {
			action, bytes, _ := strings.Cut(v, ":")
			n, err := strconv.ParseInt(bytes, 10, 64)
			if err != nil || n < 0 || action == "" {
				return fmt.Errorf("not ACTION:BYTES, such as UploadLayerPart:1000000")
			}
			s.Faults = append(s.Faults, Fault{Action: action, Cut: true, CutAfter: n, Times: 1})
			return nil
		}},
		{"expire", "ACTION", "every token so far expires with the first call of an action", func(s *Switches, v string) error {
			s.Faults = append(s.Faults, Fault{Action: v, ExpireTokens: true, Times: 1})
			return nil
		}},
		{"latency", "DURATION", "before every answer", func(s *Switches, v string) (err error) {
			var f Fault
			f.Latency, err = time.ParseDuration(v)
			s.Faults = append(s.Faults, f)
			return err
		}},
	}
	slices.SortFunc(all, func(a, b Named) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Set turns a switch, written NAME or NAME=VALUE.
func (sw *Switches) Set(text string) error {
	name, value, given := strings.Cut(text, "=")
	for _, n := range AllNamed() {
		switch {
		case n.Name != name:
		case n.Value == "" && given:
			return fmt.Errorf("switch %s takes no value", name)
		case n.Value != "" && value == "":
			return fmt.Errorf("switch %s needs a value: %s=%s", name, name, n.Value)
		default:
			if err := n.set(sw, value); err != nil {
				return fmt.Errorf("switch %s=%s: %w", name, value, err)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no switch %q", name)
}

func on(name, usage string, field func(*Switches) *bool) Named {
	return Named{name, "", usage, func(s *Switches, _ string) error {
		*field(s) = true
		return nil
	}}
}

func number(name, value, usage string, field func(*Switches) *int) Named {
	return Named{name, value, usage, func(s *Switches, v string) (err error) {
		if *field(s), err = strconv.Atoi(v); err != nil || *field(s) < 1 || value == "STATUS" && (*field(s) < 400 || *field(s) > 599) {
			return fmt.Errorf("not a %s", map[bool]string{true: "status of an error, 400 to 599", false: "number above 0"}[value == "STATUS"])
		}
		return nil
	}}
}

func answer(name, usage string, field func(*Switches) *Answer) Named {
	return Named{name, "STATUS:CODE", usage, func(s *Switches, v string) error {
		status, code, _ := strings.Cut(v, ":")
		n, err := strconv.Atoi(status)
		if err != nil || n < 400 || n > 599 || code == "" {
			return fmt.Errorf("not STATUS:CODE, such as 404:BLOB_UNKNOWN")
		}
		*field(s) = Answer{n, code}
		return nil
	}}
}

func duration(name, usage string, field func(*Switches) *time.Duration) Named {
	return Named{name, "DURATION", usage, func(s *Switches, v string) (err error) {
		*field(s), err = time.ParseDuration(v)
		return err
	}}
}

func setRate(s *Switches, v string) error {
	action, rate, _ := strings.Cut(v, ":")
	n, err := strconv.ParseFloat(rate, 64)
	if err != nil || n < 0 || action == "" {
		return fmt.Errorf("not ACTION:N")
	}
	if s.Rates == nil {
		s.Rates = map[string]float64{}
	}
	s.Rates[action] = n
	return nil
}
