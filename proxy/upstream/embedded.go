package upstream

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the embedded registry's only driver; adds nothing to the binary that Sluice's own storage does not
)

// secretFile seals the upload sessions of the embedded registry, so that one goes on after a restart.
// It stands beside the registry's "docker" folder.
const secretFile = "http-secret"

// NewEmbedded makes distribution's registry over a folder: an http.Handler for Options.Embedded, and
// what stops its background work. Deleting is enabled, the catalog works; it has no referrers API and
// refuses manifests of types it does not know, as distribution's registry does. For one process only.
// Its warnings go to logger, through logrus' standard logger, which is distribution's only one and is
// taken over for the whole process. It ends with ctx, too.
func NewEmbedded(ctx context.Context, rootDirectory string, logger *slog.Logger) (h http.Handler, c io.Closer, err error) {
	if rootDirectory == "" {
		return nil, nil, errors.New("embedded registry: no folder given; set the data folder")
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(rootDirectory)
	if err != nil {
		return nil, nil, fmt.Errorf("embedded registry in %s: %w", rootDirectory, err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, nil, fmt.Errorf("embedded registry in %s: %w; choose a data folder that can be written", rootDirectory, err)
	}
	secret, err := loadSecret(filepath.Join(root, secretFile))
	if err != nil {
		return nil, nil, fmt.Errorf("embedded registry in %s: %w", rootDirectory, err)
	}

	cfg := &configuration.Configuration{Version: configuration.CurrentVersion}
	cfg.Storage = configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": root},
		"delete":     configuration.Parameters{"enabled": true},
		"maintenance": configuration.Parameters{"uploadpurging": map[any]any{ // as distribution's defaults
			"enabled": true, "age": "168h", "interval": "24h", "dryrun": false,
		}},
	}
	cfg.HTTP.Secret = secret
	cfg.HTTP.RelativeURLs = true // it does not know what it is reached as
	cfg.Catalog.MaxEntries = 1000
	cfg.Tags.MaxTags = 1000

	defer func() {
		if p := recover(); p != nil { // NewApp panics on whatever it does not like
			h, c, err = nil, nil, fmt.Errorf("embedded registry in %s: cannot start: %v", rootDirectory, p)
		}
	}()
	bridgeLogrus(logger)
	app := handlers.NewApp(ctx, cfg)
	return app, closerFunc(app.Shutdown), nil
}

// loadSecret reads the secret or makes one. It is written under another name first, and two makers
// end with the same one.
func loadSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil {
		if s := strings.TrimSpace(string(b)); len(s) >= 32 {
			return s, nil
		}
		return "", fmt.Errorf("%s is damaged; remove it (uploads under way then fail)", file)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), secretFile+"-*") // mode 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(hex.EncodeToString(raw) + "\n")
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.Rename(tmp.Name(), file); err != nil { // a file system without links
			return "", err
		}
	}
	b, err = os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}

// embeddedTransport serves h on connections in memory, so that everything that holds for a registry
// on the network holds for it: streaming, back-pressure, Expect, cancelled requests.
func embeddedTransport(h http.Handler, log *slog.Logger) (http.RoundTripper, io.Closer) {
	l := newListener()
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Close
	}()
	t := &http.Transport{
		DialContext:           l.dial,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       10 * time.Second, // another one costs nothing
		ExpectContinueTimeout: expectTimeout,
	}
	return t, closerFunc(func() error {
		err := s.Close()
		<-done
		return err
	})
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }
