package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"pgregory.net/rapid"

	"sluice/proxy/internal/objects/objectstest"
)

func sha(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func TestWhatIsSavedIsThereAsAWholeOrNotAtAll(t *testing.T) {
	refuse := errors.New("refused")
	hungUp := errors.New("hung up")
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := Storage{Driver: d, Small: 64}
		ctx := t.Context()
		for _, size := range []int{0, 63, 64, 1000} {
			body := bytes.Repeat([]byte("x"), size)
			for name, err := range map[string]error{
				"refused": func() error {
					_, err := s.Save(ctx, "/a/b", "/staging", bytes.NewReader(body), func() error { return refuse })
					return err
				}(),
				"hung up": func() error {
					_, err := s.Save(ctx, "/a/b", "/staging", io.MultiReader(bytes.NewReader(body), broken{hungUp}), nil)
					return err
				}(),
				"another digest": func() error {
					_, err := s.Copy(ctx, "/a/b", "/staging", bytes.NewReader(body), sha([]byte("y")))
					return err
				}(),
			} {
				if err == nil || errors.Is(err, ErrStorage) {
					t.Errorf("%d bytes, %s: %v", size, name, err)
				}
			}
			if left := objectstest.Paths(t, d, "/"); len(left) > 0 {
				t.Fatalf("%d bytes: left %v", size, left)
			}
			n, err := s.Copy(ctx, "/a/b", "/staging", bytes.NewReader(body), sha(body))
			if err != nil || n != int64(size) {
				t.Fatalf("%d bytes: %d, %v", size, n, err)
			}
			for _, offset := range []int{0, size / 2, size} {
				rc, err := s.Open(ctx, "/a/b", int64(size), int64(offset))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(rc)
				rc.Close()
				if err != nil || !bytes.Equal(got, body[offset:]) {
					t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
				}
			}
			if err := s.Remove(ctx, "/a"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func TestWhatIsNotThereIsAbsentAndNoFailure(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := Storage{Driver: d}
		ctx := t.Context()
		if err := s.Put(ctx, "/folder/object", nil); err != nil {
			t.Fatal(err)
		}
		none := func(fi storagedriver.FileInfo) error { return fmt.Errorf("visited %s", fi.Path()) }
		_, get := s.Get(ctx, "/none")
		_, size := s.Size(ctx, "/none")
		_, folder := s.Size(ctx, "/folder")
		_, open := s.Open(ctx, "/none", Small, 0)
		for name, err := range map[string]error{
			"Get": get, "Size": size, "Size of a folder": folder, "Open": open, "Move": s.Move(ctx, "/folder/none", "/there"),
		} {
			if !Absent(err) || errors.Is(err, ErrStorage) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if err := s.Remove(ctx, "/none"); err != nil {
			t.Errorf("Remove: %v", err)
		}
		for _, from := range []string{"/none", "/none/at/all"} {
			names, err := s.List(ctx, from)
			err2 := s.Each(ctx, from, nil, none)
			if err != nil || err2 != nil || len(names) > 0 {
				t.Errorf("%s: %v, %v, %v", from, names, err, err2)
			}
		}
		if err := s.Each(ctx, "/", func(name string) bool { return name == "folder" }, none); err != nil {
			t.Errorf("a folder that is skipped: %v", err)
		}
	})
}

func TestAnErrorSaysWhoseItIs(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	plain := errors.New("disk full")
	for _, c := range []struct {
		name             string
		ctx              context.Context
		err              error
		absent, ofDriver bool
	}{
		{"none", t.Context(), nil, false, false},
		{"the driver's", t.Context(), plain, false, true},
		{"not there", t.Context(), fmt.Errorf("x: %w", storagedriver.PathNotFoundError{}), true, false},
		{"not there, as the system says it", t.Context(), storagedriver.Error{Detail: &fs.PathError{Err: fs.ErrNotExist}}, true, false},
		{"the caller's", over, plain, false, false},
	} {
		err := failed(c.ctx, c.err)
		if (err == nil) != (c.err == nil) || Absent(err) != c.absent || errors.Is(err, ErrStorage) != c.ofDriver || errors.Is(err, context.Canceled) != (c.ctx == over) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestADigestHasAWayBackFromItsPaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digest := rapid.StringMatching(`sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}`).Draw(t, "digest")
		tail, err := Tail("app", digest)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := DigestOfTail(tail); !ok || got != digest {
			t.Fatalf("%s is read as %s", tail, got)
		}
		if got, ok := DigestOfLeaf(Leaf(digest)); !ok || got != digest {
			t.Fatalf("%s is read as %s", Leaf(digest), got)
		}
		rest := rapid.StringMatching(`[/.a-f0-9-]{1,3}`).Draw(t, "rest")
		if got, ok := DigestOfTail(tail + rest); ok && strings.HasPrefix(got, digest) {
			t.Fatalf("%s is read as %s", tail+rest, got)
		}
	})
}

func TestNamesOutsideTheGrammarAreInvalid(t *testing.T) {
	good := sha(nil)
	for name, err := range map[string]error{
		"no repository":        second(Tail("", good)),
		"a repository above":   second(Tail("../a", good)),
		"an underscore":        second(Tail("a/_blobs", good)),
		"a repository too big": second(Tail(strings.Repeat("a", MaxRepository+1), good)),
		"no digest":            second(Tail("a", "")),
		"another algorithm":    second(Tail("a", "md5:"+good[7:])),
		"upper case":           second(Tail("a", strings.ToUpper(good))),
		"a tag above":          second(TagTail("a", "..")),
		"a tag with a slash":   second(TagTail("a", "b/c")),
		"a media type":         CheckMediaType("a\nb"),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if err := CheckBytes([]byte("a"), good); !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), good) {
		t.Errorf("got %v, want ErrDigest with the digest", err)
	}
}

func second(_ string, err error) error { return err }

// A beatenDriver deletes like a bucket in which another removes the same objects, and answers as versitygw does.
type beatenDriver struct {
	storagedriver.StorageDriver
	beaten, calls int
}

func (d *beatenDriver) Delete(ctx context.Context, path string) error {
	if d.calls++; d.calls <= d.beaten {
		return storagedriver.Errors{DriverName: "s3aws", Errs: []error{errors.New("{\n  Code: \"NoSuchKey\",\n  Key: \"a/b\"\n}")}}
	}
	return d.StorageDriver.Delete(ctx, path)
}

func TestARemovalThatMeetsAnotherGoesOn(t *testing.T) {
	for beaten, want := range map[int]error{0: nil, 1: nil, removals - 1: nil, removals: ErrStorage} {
		d := &beatenDriver{StorageDriver: inmemory.New(), beaten: beaten}
		if err := d.PutContent(t.Context(), "/a/b", []byte("left")); err != nil {
			t.Fatal(err)
		}
		err := Storage{Driver: d}.Remove(t.Context(), "/a")
		if !errors.Is(err, want) {
			t.Errorf("met %d times: %v", beaten, err)
		}
		if left := objectstest.Paths(t, d, "/"); (len(left) > 0) != (want != nil) {
			t.Errorf("met %d times: left %v", beaten, left)
		}
	}
}

// A bucket that answers a write with a status so many times, as awserr.RequestFailure does.
type refusing struct {
	storagedriver.StorageDriver
	status answered
	times  int
	writes int
}

type answered int

func (a answered) Error() string   { return http.StatusText(int(a)) }
func (a answered) StatusCode() int { return int(a) }

func (r *refusing) refuse() error {
	if r.writes++; r.writes <= r.times {
		return storagedriver.Error{DriverName: "s3aws", Detail: r.status}
	}
	return nil
}

func (r *refusing) PutContent(ctx context.Context, path string, content []byte) error {
	if err := r.refuse(); err != nil {
		return err
	}
	return r.StorageDriver.PutContent(ctx, path, content)
}

func (r *refusing) Writer(ctx context.Context, path string, appending bool) (storagedriver.FileWriter, error) {
	if err := r.refuse(); err != nil {
		return nil, err
	}
	return r.StorageDriver.Writer(ctx, path, appending)
}

func (r *refusing) Move(ctx context.Context, from, to string) error {
	if err := r.refuse(); err != nil {
		return err
	}
	return r.StorageDriver.Move(ctx, from, to)
}

func TestAWriteThatMeetsAnotherIsMadeAgain(t *testing.T) {
	for _, tt := range []struct {
		status        answered
		times, writes int
		kept          bool
	}{
		{http.StatusConflict, 3, 4, true},
		{http.StatusConflict, 100, writes, false},
		{http.StatusForbidden, 1, 1, false},
		{http.StatusInternalServerError, 1, 1, false}, // which the SDK has repeated
	} {
		d := &refusing{StorageDriver: inmemory.New(), status: tt.status, times: tt.times}
		err := Storage{Driver: d}.Put(t.Context(), "/a/b", []byte("c"))
		if (err == nil) != tt.kept || err != nil && !errors.Is(err, ErrStorage) || d.writes != tt.writes {
			t.Errorf("%d %d times: %v after %d writes", tt.status, tt.times, err, d.writes)
		}
	}
}

// A large object is written beside its place first, and moved there.
func TestALargeWriteThatMeetsAnotherIsMadeAgain(t *testing.T) {
	content := bytes.Repeat([]byte("c"), 100)
	for refusals, kept := range map[int]bool{1: true, writes - 1: true, 100: false} {
		d := &refusing{StorageDriver: inmemory.New(), status: http.StatusConflict, times: refusals}
		for _, step := range []string{"begin", "move"} {
			s := Storage{Driver: d, Small: 10}
			if step == "move" {
				d.writes, s.Driver = 0, begun{d}
			}
			_, err := s.Save(t.Context(), "/a/b", "/a/staged", bytes.NewReader(content), nil)
			if (err == nil) != kept || err != nil && !errors.Is(err, ErrStorage) {
				t.Errorf("%s, %d times: %v", step, refusals, err)
			}
			if got, err := s.Get(t.Context(), "/a/b"); kept && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%s, %d times: %d bytes are there, %v", step, refusals, len(got), err)
			}
			if _, err := s.Get(t.Context(), "/a/staged"); !Absent(err) {
				t.Errorf("%s, %d times: what was staged stays: %v", step, refusals, err)
			}
		}
	}
}

// begun refuses no Writer.
type begun struct{ *refusing }

func (b begun) Writer(ctx context.Context, path string, appending bool) (storagedriver.FileWriter, error) {
	return b.StorageDriver.Writer(ctx, path, appending)
}
