package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// othersMay are the permissions that a data folder must not give: it holds the key that seals
// upload URLs, and attestations, which may name internal sources. The storage driver leaves what
// it writes readable to everybody, so the folder itself has to keep others out.
const othersMay fs.FileMode = 0o077

// privateFolder makes the data folder for its owner only. One that is there and open to others is
// closed if it is Sluice's own beyond doubt; of any other, say a home folder or /tmp, the log says
// what to do.
func privateFolder(root string, log *slog.Logger) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	folder, err := os.Open(root)
	if err != nil {
		return err
	}
	defer folder.Close()
	before, err := folder.Stat()
	if err != nil {
		return err
	}
	mode := before.Mode()
	if mode&othersMay == 0 {
		return nil
	}
	why := notOurs(folder, before)
	if why == "" {
		why = closeToOthers(folder, mode)
	}
	if why != "" {
		log.Warn("data folder is open to other users of this machine, who may read attestations and the key that seals uploads: chmod 700 it, or choose another with --data",
			"folder", root, "mode", fmt.Sprintf("%04o", mode.Perm()), "reason", why)
		return nil
	}
	log.Info("data folder was open to other users of this machine and is closed now", "folder", root, "mode", fmt.Sprintf("%04o", mode.Perm()))
	return nil
}

func closeToOthers(folder *os.File, mode fs.FileMode) (why string) {
	if err := folder.Chmod(mode &^ othersMay); err != nil {
		return err.Error()
	}
	// Some file systems say yes and do nothing.
	if after, err := folder.Stat(); err != nil || after.Mode()&othersMay != 0 {
		return "its file system does not keep permissions"
	}
	return ""
}

// notOurs is why a folder is not Sluice's own, "" if it is: owned by this user, and either empty
// or with the mark that Sluice leaves in its storage.
func notOurs(folder *os.File, info fs.FileInfo) string {
	switch names, err := folder.Readdirnames(1); {
	case !ownedByThisUser(info):
		return "it belongs to another user"
	case info.Mode()&fs.ModeSticky != 0: // /tmp, even if nothing is in it
		return "it is made to be shared"
	case err == io.EOF || err == nil && len(names) == 0:
		return ""
	case err != nil:
		return err.Error()
	}
	b, err := os.ReadFile(filepath.Join(folder.Name(), "format"))
	if err != nil || !bytes.HasPrefix(b, []byte("sluice ")) {
		return "it holds files that are not Sluice's"
	}
	return ""
}

// occupy says in the log that another process serves from this folder, and until release lets others say so of this one.
// It is no error: what is kept is right with two as it is with replicas on a bucket. But they count their users' quota
// apart, and an embedded registry expects to be the only one; most likely one was started by mistake.
func occupy(root string, log *slog.Logger) (release func()) {
	folder, err := os.Open(root)
	if err != nil {
		return func() {} // whatever it is, reading the format says it
	}
	if lock(folder) {
		log.Warn("another process has this data folder: run one, or give this one its own with --data", "folder", root)
	}
	return func() { _ = folder.Close() }
}
