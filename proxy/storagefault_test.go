package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// fullDisk takes no writes to paths that contain a word, while what is there can be read.
type fullDisk struct {
	storagedriver.StorageDriver
	full    atomic.Pointer[string] // nil: there is room
	refused atomic.Int64
}

func newFullDisk() *fullDisk { return &fullDisk{StorageDriver: inmemory.New()} }

func (d *fullDisk) fill(where string) { d.full.Store(&where) }
func (d *fullDisk) empty()            { d.full.Store(nil) }

// waitRefused returns when something was refused, or nobody waits for that any more.
func (d *fullDisk) waitRefused() {
	for end := time.Now().Add(patience); d.refused.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func (d *fullDisk) room(path string) error {
	if where := d.full.Load(); where != nil && strings.Contains(path, *where) {
		d.refused.Add(1)
		return errors.New("no space left on device")
	}
	return nil
}

func (d *fullDisk) PutContent(ctx context.Context, path string, content []byte) error {
	if err := d.room(path); err != nil {
		return err
	}
	return d.StorageDriver.PutContent(ctx, path, content)
}

func (d *fullDisk) Writer(ctx context.Context, path string, appending bool) (storagedriver.FileWriter, error) {
	if err := d.room(path); err != nil {
		return nil, err
	}
	return d.StorageDriver.Writer(ctx, path, appending)
}

func (d *fullDisk) Move(ctx context.Context, from, to string) error {
	if err := d.room(to); err != nil {
		return err
	}
	return d.StorageDriver.Move(ctx, from, to)
}

func onStorageError(o config.OnStorageError) setting {
	return with(func(c *config.Config) { c.OnStorageError = o })
}

// on_storage_error, for every client and for statements that are kept in one piece and in parts.
// Whatever is chosen, nothing upstream dangles (I7), and only forward lets an attestation through (I2).
func TestAFullDiskDoesToAPushWhatTheOperatorChose(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		for _, choice := range []config.OnStorageError{config.StorageErrorReject, config.StorageErrorForward, config.StorageErrorStrip} {
			one := []string{"linux/amd64"}
			options := map[string]proxytest.SyntheticOptions{"small": {Platforms: one}}
			if client.Name == "buildkit" || client.Name == "skopeo" { // to the others neither is a difference
				options["large"] = proxytest.SyntheticOptions{Platforms: one, StatementSize: 300 << 10}
				options["two platforms"] = proxytest.SyntheticOptions{}
			}
			for size, o := range options {
				t.Run(fmt.Sprint(client.Name, " ", choice, " ", size), func(t *testing.T) { fullDiskPush(t, client, choice, o) })
			}
		}
	}
}

func fullDiskPush(t *testing.T, client proxytest.Client, choice config.OnStorageError, o proxytest.SyntheticOptions) {
	plain := proxytest.Synthetic(o)
	o.Form = proxytest.FormLegacy
	tree := proxytest.Synthetic(o)
	d := newFullDisk()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(d), onStorageError(choice))
	push := func() (proxytest.Result, error) {
		defer r.proxy.Settle()
		return client.Push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true})
	}
	d.fill("")
	res, err := push()
	proxytest.AssertComplete(t, r.upstream)
	if choice != config.StorageErrorForward {
		proxytest.AssertClean(t, r.upstream)
	}
	switch {
	case choice == config.StorageErrorReject:
		if err == nil {
			t.Error("the push succeeds although its attestations are lost")
		}
		r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusNotFound)
	case choice == config.StorageErrorStrip && client.Name == "oras":
		// It reads back each manifest that it has put, and this one was acknowledged and not kept.
		if err == nil || !strings.Contains(err.Error(), "GET ") || !strings.Contains(err.Error(), "404") {
			t.Errorf("oras does not find that an attestation was not kept: %v", err)
		}
	case err != nil:
		t.Errorf("the push fails: %.300s", err)
	case choice == config.StorageErrorForward:
		if got := r.upstreamDigest("app", "1"); got != res.Pushed.Digest() {
			t.Errorf("upstream has %s, want what was pushed, %s (I4)", got, res.Pushed.Digest())
		}
	default:
		if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
			t.Errorf("upstream has %s, want the images alone, %s", got, plain.Digest())
		}
	}
	// With room again the same push comes to what it always does.
	d.empty()
	if _, err := push(); err != nil {
		t.Fatalf("the retry fails: %v", err)
	}
	proxytest.AssertComplete(t, r.upstream)
	if choice == config.StorageErrorForward {
		return // the attestations are upstream, and a client need not send them again
	}
	proxytest.AssertClean(t, r.upstream)
	if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
		t.Errorf("after the retry upstream has %s, want %s", got, plain.Digest())
	}
}

// Pushes without attestations go on when the storage is down, also those whose config is `{}`, as that of most attestations is.
func TestAnArtifactIsPushedWhileTheStorageIsDown(t *testing.T) {
	for _, choice := range choices() {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(choice, " chunked ", chunked), func(t *testing.T) {
				d := proxytest.NewFailingDriver(inmemory.New())
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(d), onStorageError(choice))
				location := r.upload("app") // the keys that seal it are read by then
				d.Fail(1, proxytest.FaultDead)
				body := []byte("{}")
				if chunked {
					location = r.request(http.MethodPatch, location, body).want(t, http.StatusAccepted).Header.Get("Location")
					body = nil
				}
				r.request(http.MethodPut, put(location, filters.EmptyDigest), body).want(t, http.StatusCreated)
				r.request(http.MethodPut, "/v2/app/manifests/1", noteOfNothing, "Content-Type", ociManifest).want(t, http.StatusCreated)
				if got := r.upstreamDigest("app", "1"); got != ocidoc.DigestOf(noteOfNothing) {
					t.Errorf("upstream has %s, want what was pushed, %s (I4)", got, ocidoc.DigestOf(noteOfNothing))
				}
				proxytest.AssertComplete(t, r.upstream)
				if !d.Fired() {
					t.Error("the storage was not asked, so nothing is shown")
				}
			})
		}
	}
}

// noteOfNothing is an artifact whose config and only layer are `{}`.
var noteOfNothing = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/note","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2}]}`,
	ociManifest, filters.EmptyDigest, filters.EmptyDigest)

// I7: on_storage_error: forward, when some of an index is kept already. Not every upstream looks
// whether an index lists what is there.
func TestForwardingUnderStorageTroubleLeavesNothingDangling(t *testing.T) {
	upstreams := proxytest.Upstreams()
	upstreams["distribution without validation"] = func(t testing.TB, o proxytest.UpstreamOptions) *proxytest.Upstream {
		o.NoValidation = true
		return proxytest.NewDistribution(t, o)
	}
	for kind, newUpstream := range upstreams {
		for _, tt := range []struct {
			act   filters.Action
			where string
		}{
			{filters.Store, "/_aliases/"},
			{filters.Store, "/_tags/"},
			{filters.Store, "/_documents/"},
			{filters.Store, "/attestations/"},
			{filters.Strip, "/_originals/"},
			{filters.Strip, "/_aliases/"},
		} {
			t.Run(fmt.Sprint(kind, " ", tt.act, " ", tt.where), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
				d := newFullDisk()
				r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(tt.act), storage(d), onStorageError(config.StorageErrorForward))
				d.fill(tt.where)
				r.push(proxytest.BuildKit, "app", "1", tree)
				if d.refused.Load() == 0 {
					t.Fatalf("nothing is written to %s: %v", tt.where, r.files("/", ""))
				}
				if got := r.upstreamDigest("app", "1"); got != tree.Digest() {
					t.Errorf("upstream has %s, want what was pushed, %s (I4)", got, tree.Digest())
				}
				proxytest.AssertComplete(t, r.upstream)
				if n := r.scrape()[`sluice_attestations_upstream_total{reason="storage"}`]; n != 1 {
					t.Errorf("%v attestations are counted that are upstream because of the storage, want 1 (I2)", n)
				}
				if !strings.Contains(r.log.String(), "forwarded with attestations, since storage failed") {
					t.Error("the log does not say that attestations are upstream (I2)")
				}
			})
		}
	}
}

// I7: on_storage_error: strip, when the disk is full by the time an index comes whose inner index was
// rewritten before, and somebody has deleted that upstream.
func TestStrippingUnderStorageTroubleReachesInnerIndexes(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		d := newFullDisk()
		r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{Delete: true}), storage(d), onStorageError(config.StorageErrorStrip))
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
		plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
		r.push(proxytest.BuildKit, "app", "1", tree)
		inner := indexOf(entryOf(ociIndex, tree.Digest(), int(tree.Root.Size)))
		r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(inner), inner, "Content-Type", ociIndex).want(t, http.StatusCreated)
		wantInner := indexOf(entryOf(ociIndex, plain.Digest(), int(plain.Root.Size)))
		r.direct(http.MethodDelete, "/v2/app/manifests/"+ocidoc.DigestOf(wantInner), nil).want(t, http.StatusAccepted)
		d.fill("")
		outer := indexOf(entryOf(ociIndex, ocidoc.DigestOf(inner), len(inner)))
		a := r.request(http.MethodPut, "/v2/app/manifests/outer", outer, "Content-Type", ociIndex).want(t, http.StatusCreated)
		if got := a.Header.Get("Docker-Content-Digest"); got != ocidoc.DigestOf(outer) {
			t.Errorf("the answer says %s, pushed was %s (I5)", got, ocidoc.DigestOf(outer))
		}
		wantOuter := indexOf(entryOf(ociIndex, ocidoc.DigestOf(wantInner), len(wantInner)))
		got := r.direct(http.MethodGet, "/v2/app/manifests/outer", nil, acceptAll...).want(t, http.StatusOK)
		if string(got.body) != string(wantOuter) {
			t.Errorf("upstream has %s, want %s", got.body, wantOuter)
		}
		proxytest.AssertClean(t, r.upstream)
		proxytest.AssertComplete(t, r.upstream)
	})
}

// BuildKit comes again at once, five times, whatever Retry-After says: it outlives a storage that is away for a moment because
// the answer is kept back.
func TestAStorageThatIsAwayForAMomentFailsNoPush(t *testing.T) {
	disk := newFullDisk()
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(disk))
	r.proxy.HoldBack(500 * time.Millisecond)
	disk.fill("/")
	go func() {
		disk.waitRefused()
		time.Sleep(time.Second)
		disk.empty()
	}()
	o := proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0]}), Retries: 5}
	if _, err := proxytest.BuildKit(context.Background(), o); err != nil {
		t.Error(err)
	}
	if disk.refused.Load() == 0 {
		t.Error("the storage was never away: this proves nothing")
	}
}

// Nobody waits for a client that has gone.
func TestAnAnswerIsKeptBackOnlyWhileItsClientIsThere(t *testing.T) {
	disk := newFullDisk()
	ended := make(chan string, 2)
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(disk), before(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { ended <- r.Method }()
			next.ServeHTTP(w, r)
		})
	}))
	r.proxy.HoldBack(time.Hour)
	location := r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	disk.fill("/")
	ctx, hangUp := context.WithCancel(context.Background())
	go func() {
		disk.waitRefused() // it has come as far as that
		hangUp()
	}()
	statement := statementOf(1, 10)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.url()+put(location, ocidoc.DigestOf(statement)), bytes.NewReader(statement))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("the answer was not kept back: %s", resp.Status)
	}
	for range 2 { // POST, and the PUT that nobody waits for
		receive(t, "end of a request", ended)
	}
}
