// Package config reads Sluice's configuration: one strict YAML file, flags and
// environment variables laid over it, and a Validate that names every mistake.
//
// The order of precedence is flag > environment > file > default. Nothing is
// ever ignored: an unknown key, a key without a value, a value that a later
// version will understand and two settings that contradict each other are all
// refused, each with "file:line: key: what is wrong and what to do", and all of
// them in one go, so that an operator does not have to run check-config once per
// mistake.
//
// config.yml at the root of the project explains every key; a test holds it equal
// to Default.
package config

import (
	"time"

	"sluice/filters"
)

// Config is the whole configuration. Take it from Load, Parse or Default; it is
// not changed afterwards and may be read by any number of goroutines.
type Config struct {
	Listen          string             `yaml:"listen"`
	TLS             TLS                `yaml:"tls"`
	Admin           string             `yaml:"admin"` // "" = off
	Pprof           bool               `yaml:"pprof"`
	AccessLog       bool               `yaml:"access_log"`
	Notifications   Notifications      `yaml:"notifications"`
	Access          Access             `yaml:"access"`
	Upstreams       []Upstream         `yaml:"upstreams"`
	Attestations    filters.Action     `yaml:"attestations"`
	DryRun          bool               `yaml:"dry_run"`
	Unwrap          filters.Unwrap     `yaml:"unwrap"`
	View            View               `yaml:"view"`
	MediaTypes      filters.MediaTypes `yaml:"media_types"`
	CacheIndex      filters.CacheIndex `yaml:"cache_index"`
	SignedOriginals SignedOriginals    `yaml:"signed_originals"`
	Rules           []Rule             `yaml:"rules"`
	Store           Store              `yaml:"store"`
	Storage         Storage            `yaml:"storage"`
	OnStorageError  OnStorageError     `yaml:"on_storage_error"`
	StorageTimeout  Duration           `yaml:"storage_timeout"` // of one call to the storage
	Retention       Days               `yaml:"retention"`
	MaxHeldBlob     Size               `yaml:"max_held_blob"`
	SealKeys        []Secret           `yaml:"seal_keys"` // 32 bytes each, base64 or hex; see Keys
	ShutdownTimeout Duration           `yaml:"shutdown_timeout"`

	source source // where each key was set, for messages
}

// TLS is the server's own certificate. Both or neither of the first two are set.
type TLS struct {
	Certificate string `yaml:"certificate"` // file, PEM
	Key         string `yaml:"key"`         // file, PEM
	ClientCA    string `yaml:"client_ca"`   // file, PEM; clients must then have a certificate of one of these authorities
}

// Access says who may use the proxy.
type Access struct {
	Mode        AccessMode   `yaml:"mode"`
	Htpasswd    string       `yaml:"htpasswd"` // file with bcrypt entries
	Token       TokenService `yaml:"token"`
	OIDC        []OIDCIssuer `yaml:"oidc"`
	MTLS        MTLS         `yaml:"mtls"`
	Insecure    bool         `yaml:"insecure"` // allows mode none on an address that others can reach, and by any name
	Permissions []Permission `yaml:"permissions"`
	// MaxHeldPerIdentity bounds what one identity may hold in quarantine that no index
	// claims; 0 = no bound.
	MaxHeldPerIdentity Size `yaml:"max_held_per_identity"`
}

// TokenService is who signs the tokens of access mode token. The keys are those of
// distribution's auth.token.
type TokenService struct {
	Realm          string `yaml:"realm"` // URL where clients fetch a token
	Service        string `yaml:"service"`
	Issuer         string `yaml:"issuer"`
	RootCertBundle string `yaml:"rootcertbundle"` // file, PEM
	JWKS           string `yaml:"jwks"`           // file
}

// OIDCIssuer gives ID tokens that access mode oidc takes.
type OIDCIssuer struct {
	Issuer   string            `yaml:"issuer"`
	Audience string            `yaml:"audience"`
	Claims   map[string]string `yaml:"claims"` // globs
	Identity string            `yaml:"identity"`
	CA       string            `yaml:"ca"`   // file, PEM
	JWKS     string            `yaml:"jwks"` // file or URL
}

// MTLS says what of a client's certificate is its identity.
type MTLS struct {
	Identity CertificateIdentity `yaml:"identity"`
}

// Permission lets the identities that match do the actions on the repositories
// that match. An empty list of permissions allows everybody everything.
type Permission struct {
	Identity     string   `yaml:"identity"`     // glob
	Repositories []string `yaml:"repositories"` // globs
	Actions      []string `yaml:"actions"`      // pull, push
}

// Upstream is one registry behind the proxy.
type Upstream struct {
	Prefix             string             `yaml:"prefix"`
	URL                string             `yaml:"url"` // Embedded, or http(s)://host[:port]
	Credentials        Credentials        `yaml:"credentials"`
	Username           string             `yaml:"username"`
	PasswordFile       string             `yaml:"password_file"`
	Password           Secret             `yaml:"-"`     // from SLUICE_UPSTREAM_PASSWORD only, never from a file that is checked in
	CA                 string             `yaml:"ca"`    // file, PEM
	Hosts              []string           `yaml:"hosts"` // other hosts it may name as token realm or upload location
	Redirects          Redirects          `yaml:"redirects"`
	CreateRepositories CreateRepositories `yaml:"create_repositories"`
	Rates              map[string]int     `yaml:"rates"` // requests per second by action, see RateKeys; 0 = no limit
}

// Embedded as an upstream's URL is the registry inside the process.
const Embedded = "embedded"

// CreateRepositories says whether Sluice makes repositories that a push finds missing, and with what.
// It is for private registries of Amazon ECR. Empty settings are ECR's own defaults.
type CreateRepositories struct {
	Enabled              bool              `yaml:"enabled"`
	Repositories         []string          `yaml:"repositories"`   // globs of upstream's names; none: all
	TagMutability        TagMutability     `yaml:"tag_mutability"` // "" or one of four
	TagExclusions        []string          `yaml:"tag_exclusions"`
	Encryption           Encryption        `yaml:"encryption"` // "" or one of three
	KMSKey               string            `yaml:"kms_key"`
	Tags                 map[string]string `yaml:"tags"`
	LifecyclePolicy      string            `yaml:"lifecycle_policy"`      // JSON
	LifecyclePolicyFile  string            `yaml:"lifecycle_policy_file"` // or a file with it
	RepositoryPolicy     string            `yaml:"repository_policy"`
	RepositoryPolicyFile string            `yaml:"repository_policy_file"`
}

// Rule overrides settings for the repositories that match one of its globs.
// Settings that are empty fall back to those at the top level.
type Rule struct {
	Repositories    []string           `yaml:"repositories"`
	Attestations    filters.Action     `yaml:"attestations"`
	Unwrap          filters.Unwrap     `yaml:"unwrap"`
	View            View               `yaml:"view"`
	MediaTypes      filters.MediaTypes `yaml:"media_types"`
	CacheIndex      filters.CacheIndex `yaml:"cache_index"`
	SignedOriginals SignedOriginals    `yaml:"signed_originals"`
}

// Store says where attestations go that `attestations: store` takes out.
type Store struct {
	To         StoreTo `yaml:"to"`
	Repository string  `yaml:"repository"` // of to: repository; {repository} in it is the image's
	Retention  Days    `yaml:"retention"`  // Forever (0), or whole days; of the storage only
}

type (
	AccessMode string
	// CertificateIdentity is a part of a certificate.
	CertificateIdentity string
	Credentials         string
	Redirects           string
	View                string
	SignedOriginals     string
	StoreTo             string
	OnStorageError      string
	TagMutability       string
	Encryption          string
)

const (
	AccessNone        AccessMode = "none"
	AccessHtpasswd    AccessMode = "htpasswd"
	AccessToken       AccessMode = "token"
	AccessOIDC        AccessMode = "oidc"
	AccessMTLS        AccessMode = "mtls"
	AccessPassthrough AccessMode = "passthrough"

	IdentityCommonName CertificateIdentity = "common_name"
	IdentityDNS        CertificateIdentity = "dns"
	IdentityURI        CertificateIdentity = "uri"

	CredentialsAuto        Credentials = "auto"
	CredentialsDocker      Credentials = "docker"
	CredentialsBasic       Credentials = "basic"
	CredentialsPassthrough Credentials = "passthrough"
	CredentialsAnonymous   Credentials = "anonymous"
	CredentialsECR         Credentials = "ecr"

	RedirectsPass   Redirects = "pass"
	RedirectsFollow Redirects = "follow"

	ViewUpstream View = "upstream"
	ViewOriginal View = "original"

	// CacheIndexAuto is manifest if the upstream is Amazon ECR, else keep.
	CacheIndexAuto filters.CacheIndex = "auto"

	SignedRefuse  SignedOriginals = "refuse"
	SignedWarn    SignedOriginals = "warn"
	SignedForward SignedOriginals = "forward"

	StoreToStorage    StoreTo = "storage"
	StoreToRepository StoreTo = "repository"
	StoreToReferrers  StoreTo = "referrers"

	StorageErrorReject  OnStorageError = "reject"
	StorageErrorForward OnStorageError = "forward"
	StorageErrorStrip   OnStorageError = "strip"

	Mutable                TagMutability = "MUTABLE"
	Immutable              TagMutability = "IMMUTABLE"
	MutableWithExclusion   TagMutability = "MUTABLE_WITH_EXCLUSION"
	ImmutableWithExclusion TagMutability = "IMMUTABLE_WITH_EXCLUSION"

	EncryptionAES256  Encryption = "AES256"
	EncryptionKMS     Encryption = "KMS"
	EncryptionKMSDSSE Encryption = "KMS_DSSE"
)

// Default is the configuration without a file, flags or environment.
func Default() *Config {
	return &Config{
		Listen:          "127.0.0.1:5000",
		Admin:           "127.0.0.1:5080",
		Access:          Access{Mode: AccessNone, MTLS: MTLS{Identity: IdentityCommonName}, MaxHeldPerIdentity: 10 << 30},
		Upstreams:       []Upstream{defaultUpstream(Embedded)},
		Attestations:    filters.Store,
		Unwrap:          filters.UnwrapAuto,
		View:            ViewUpstream,
		MediaTypes:      filters.MediaTypesKeep,
		CacheIndex:      CacheIndexAuto,
		SignedOriginals: SignedRefuse,
		Store:           Store{To: StoreToStorage, Repository: "{repository}-attestations", Retention: Forever},
		Storage:         Storage{Filesystem: &Filesystem{RootDirectory: "./sluice-data"}},
		OnStorageError:  StorageErrorReject,
		StorageTimeout:  Duration(30 * time.Second),
		Retention:       2,
		MaxHeldBlob:     128 << 20,
		ShutdownTimeout: Duration(30 * time.Second),
	}
}

// defaultIssuer takes the whole subject: what one gives to two clients is never one name.
func defaultIssuer() OIDCIssuer { return OIDCIssuer{Identity: "{sub}"} }

func defaultUpstream(url string) Upstream {
	return Upstream{URL: url, Credentials: CredentialsAuto, Redirects: RedirectsPass}
}
