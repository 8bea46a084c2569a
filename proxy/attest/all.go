package attest

import (
	"context"
	"errors"
	"hash/maphash"
	"path"
	"slices"
	"strings"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

// What is stored for good may be millions of objects. Whatever looks at all of them, as sweeps do each day in every
// replica, keeps of each no more than a few bytes.

// A digestSet is which digests, or other names, were seen, in some 20 bytes for each. It may take one for another with a
// probability of 2^-64, which nobody can bring about: its hash has a secret of the process.
type digestSet map[uint64]struct{}

var digestSeed = maphash.MakeSeed()

func (d digestSet) add(digest string)      { d[maphash.String(digestSeed, digest)] = struct{}{} }
func (d digestSet) has(digest string) bool { _, ok := d[maphash.String(digestSeed, digest)]; return ok }

// repositories are those of which something is stored, sorted. Only folders are listed, not what is in them.
func (s *Store) repositories(ctx context.Context) (found []string, err error) {
	var look func(repo string) error
	look = func(repo string) error {
		folder := path.Join("/"+root, repo)
		names, err := s.storage.List(ctx, folder)
		if err != nil {
			if fi, statErr := s.storage.Stat(ctx, folder); statErr == nil && !fi.IsDir() {
				return nil // a file that somebody put there
			}
			return err
		}
		if repo != "" && slices.ContainsFunc(names, isKind) {
			found = append(found, repo)
		}
		for _, name := range names {
			if inner := path.Join(repo, name); !isKind(name) && objects.CheckRepository(inner) == nil {
				if err := look(inner); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err = look("")
	slices.Sort(found)
	return found, err
}

// isKind: no component of a repository's name begins like that.
func isKind(name string) bool { return strings.HasPrefix(name, "_") }

// each visits all objects of one kind of a repository, some more than once where folders vanish meanwhile.
func (s *Store) each(ctx context.Context, repo string, k kind, visit func(fi storagedriver.FileInfo, rest string) error) error {
	return s.storage.Each(ctx, "/"+root+"/"+repo+"/"+string(k), nil, func(fi storagedriver.FileInfo) error {
		if _, _, rest, ok := split(fi.Path()); ok {
			return visit(fi, rest)
		}
		return nil
	})
}

// readTogether is how many records are in memory.
const readTogether = 256

// eachRecord visits every record of a repository once, and the lookups whose record is gone, lost: it was deleted, or
// expired, in the moment in which it was written again, and what can be found is kept. Those whose path skip refuses are not
// read; skip may be nil.
func (s *Store) eachRecord(ctx context.Context, repo string, skip func(path string) bool, visit func(r Record, lost bool) error) error {
	known := digestSet{} // by attestation and key
	for _, k := range []kind{recordKind, subjectKind, originalKind} {
		var paths []string
		read := func() error {
			records, err := s.readRecords(ctx, paths)
			paths = paths[:0]
			for _, r := range records {
				if err == nil {
					err = visit(r, k != recordKind)
				}
			}
			return err
		}
		err := s.each(ctx, repo, k, func(fi storagedriver.FileInfo, rest string) error {
			name, ok := recordName(k, rest)
			if !ok || known.has(name) {
				return nil
			}
			known.add(name)
			if skip == nil || !skip(fi.Path()) {
				paths = append(paths, fi.Path())
			}
			if len(paths) < readTogether {
				return nil
			}
			return read()
		})
		if err == nil {
			err = read()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recordName is what lookups call a record, made of its attestation and its key; false for what is no record.
func recordName(k kind, rest string) (name string, ok bool) {
	if k != recordKind {
		_, name = path.Split(rest)
		_, ok = attestationOf(name)
		return name, ok
	}
	digest, key := path.Split(rest)
	return strings.ReplaceAll(digest, "/", "-") + key, keyGrammar.MatchString(key)
}

// readRecords leaves out what was deleted since it was listed.
func (s *Store) readRecords(ctx context.Context, paths []string) ([]Record, error) {
	found := make([]*Record, len(paths))
	group, groupCtx := contain.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for i, p := range paths {
		group.Go(func() (err error) {
			found[i], err = s.readRecord(groupCtx, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var records []Record
	for _, r := range found {
		if r != nil {
			records = append(records, *r)
		}
	}
	return records, nil
}

// stepsAtOnce and failuresAtOnce bound what is remembered of what there is to do, and of what failed.
const (
	stepsAtOnce    = 4096
	failuresAtOnce = 100
)

// nextStep takes something that is to be done with the object at path, once.
type nextStep func(path string, do func() error) error

// inSteps does all that list finds, but not while it lists: a walk that is given up may still be going on. There may be more
// than is to be kept in memory, say after a shorter retention was chosen; then it is listed again.
func inSteps(list func(next nextStep) error) error {
	done := digestSet{}
	var errs []error
	for {
		var todo []func() error
		more := false
		err := list(func(path string, do func() error) error {
			switch {
			case done.has(path):
			case len(todo) == stepsAtOnce:
				more = true
				return storagedriver.ErrFilledBuffer
			default:
				done.add(path)
				todo = append(todo, do)
			}
			return nil
		})
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, do := range todo {
			if err := do(); err != nil {
				errs = append(errs, err)
			}
			if len(errs) == failuresAtOnce {
				return errors.Join(errs...)
			}
		}
		if !more {
			return errors.Join(errs...)
		}
	}
}
