package config

import (
	"reflect"
	"strings"
)

// Storage is the storage driver that holds all state. Exactly one is set. The keys of each are those of
// distribution's configuration; a size may have a unit besides. What only concerns clients that are sent to the
// storage (redirectendpoint) is left out: Sluice sends nobody there.
type Storage struct {
	Filesystem *Filesystem `yaml:"filesystem"`
	Inmemory   *Inmemory   `yaml:"inmemory"`
	S3         *S3         `yaml:"s3"`
	GCS        *GCS        `yaml:"gcs"`
	Azure      *Azure      `yaml:"azure"`
}

// Filesystem are the parameters of distribution's filesystem driver.
type Filesystem struct {
	RootDirectory string `yaml:"rootdirectory"`
	MaxThreads    int    `yaml:"maxthreads"` // 0 = the driver's own default
}

// Inmemory forgets everything when the process ends; it is there for tests.
type Inmemory struct{}

// S3 are the parameters of distribution's s3-aws driver. Without keys it takes what the AWS SDK finds: environment,
// profile, web identity, role. Zero values are left to the driver.
type S3 struct {
	Bucket         string `yaml:"bucket"`
	Region         string `yaml:"region"`
	RegionEndpoint string `yaml:"regionendpoint"` // URL of something that speaks S3 and is not Amazon's
	ForcePathStyle bool   `yaml:"forcepathstyle"`
	RootDirectory  string `yaml:"rootdirectory"` // a prefix in the bucket
	AccessKey      string `yaml:"accesskey"`
	SecretKey      Secret `yaml:"secretkey"`
	Encrypt        bool   `yaml:"encrypt"`
	KeyID          string `yaml:"keyid"`
	StorageClass   string `yaml:"storageclass"`
	ObjectACL      string `yaml:"objectacl"`
	Secure         bool   `yaml:"secure"`
	SkipVerify     bool   `yaml:"skipverify"`
	V4Auth         bool   `yaml:"v4auth"`
	ChunkSize      Size   `yaml:"chunksize"`

	MultipartCopyChunkSize      Size `yaml:"multipartcopychunksize"`
	MultipartCopyMaxConcurrency int  `yaml:"multipartcopymaxconcurrency"`
	MultipartCopyThresholdSize  Size `yaml:"multipartcopythresholdsize"`

	UserAgent       string `yaml:"useragent"`
	LogLevel        string `yaml:"loglevel"`
	UseDualStack    bool   `yaml:"usedualstack"`
	UseFIPSEndpoint bool   `yaml:"usefipsendpoint"`
	Accelerate      bool   `yaml:"accelerate"`
}

// defaultS3 has the two switches that are on in the driver.
func defaultS3() S3 { return S3{Secure: true, V4Auth: true} }

// GCS are the parameters of distribution's gcs driver, which is in builds with the tag include_gcs. Without a key
// file it takes Google's application default credentials.
type GCS struct {
	Bucket         string `yaml:"bucket"`
	KeyFile        string `yaml:"keyfile"`
	RootDirectory  string `yaml:"rootdirectory"`
	ChunkSize      Size   `yaml:"chunksize"` // a multiple of 256 KiB
	MaxConcurrency int    `yaml:"maxconcurrency"`
	UserAgent      string `yaml:"useragent"`
}

// Azure are the parameters of distribution's azure driver, which is in builds with the tag include_azure.
type Azure struct {
	AccountName      string           `yaml:"accountname"`
	Container        string           `yaml:"container"`
	AccountKey       Secret           `yaml:"accountkey"`
	ConnectionString Secret           `yaml:"connectionstring"`
	Credentials      AzureCredentials `yaml:"credentials"`
	Realm            string           `yaml:"realm"`
	RootDirectory    string           `yaml:"rootdirectory"`
	ServiceURL       string           `yaml:"serviceurl"`
	MaxRetries       int              `yaml:"max_retries"`
	RetryDelay       string           `yaml:"retry_delay"`
	SkipVerify       bool             `yaml:"skipverify"`
}

// AzureCredentials say how the driver signs in.
type AzureCredentials struct {
	Type     string `yaml:"type"` // client_secret, shared_key or default_credentials
	ClientID string `yaml:"clientid"`
	TenantID string `yaml:"tenantid"`
	Secret   Secret `yaml:"secret"`
}

// Driver is the key of the driver that is set, "" if none is.
func (s Storage) Driver() string {
	if set := s.drivers(); len(set) > 0 {
		return set[0]
	}
	return ""
}

// Where names the storage for people.
func (s Storage) Where() string {
	switch {
	case s.Filesystem != nil:
		return "folder " + s.Filesystem.RootDirectory
	case s.S3 != nil:
		return "s3, bucket " + s.S3.Bucket
	case s.GCS != nil:
		return "gcs, bucket " + s.GCS.Bucket
	case s.Azure != nil:
		return "azure, container " + s.Azure.Container
	}
	return s.Driver()
}

// Shared says whether the state is where other replicas find it.
func (s Storage) Shared() bool { return s.S3 != nil || s.GCS != nil || s.Azure != nil }

func (s Storage) drivers() (set []string) {
	v := reflect.ValueOf(s)
	for i, key := range keysOf(v.Type()) {
		if !v.Field(i).IsNil() {
			set = append(set, key)
		}
	}
	return set
}

// minChunk is the least that S3 takes as a part of an upload, and that the driver accepts.
const minChunk = 5 << 20

func (v *validator) storage() {
	switch set := v.Storage.drivers(); len(set) {
	case 0:
		v.add("storage", "names no driver; write storage: {filesystem: {rootdirectory: ./sluice-data}}")
	case 1:
	case 2:
		v.add("storage", "names two drivers, %s; keep one", strings.Join(set, " and "))
	default:
		v.add("storage", "names %d drivers, %s; keep one", len(set), strings.Join(set, ", "))
	}
	if fs := v.Storage.Filesystem; fs != nil {
		if fs.RootDirectory == "" {
			v.add("storage.filesystem.rootdirectory", "is missing; name the folder that is to hold the state")
		}
		// distribution's driver raises anything lower to 25 without a word.
		if fs.MaxThreads != 0 && fs.MaxThreads < 25 {
			v.add("storage.filesystem.maxthreads", "must be at least 25, or left out for the driver's default of 100")
		}
	}
	if s3 := v.Storage.S3; s3 != nil {
		v.s3(s3)
	}
	if gcs := v.Storage.GCS; gcs != nil {
		v.gcs(gcs)
	}
	if azure := v.Storage.Azure; azure != nil {
		v.azure(azure)
	}
}

func (v *validator) s3(s *S3) {
	const at = "storage.s3."
	if s.Bucket == "" {
		v.add(at+"bucket", "is missing; name the bucket that is to hold the state")
	}
	if s.Region == "" && s.RegionEndpoint == "" {
		v.add(at+"region", "is missing; write the region of the bucket, or regionendpoint for a store that is not Amazon's")
	}
	if (s.AccessKey == "") != (s.SecretKey == "") {
		v.add(at+"accesskey", "goes with secretkey; set both, or leave both out: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, are then used")
	}
	if s.KeyID != "" && !s.Encrypt {
		v.add(at+"keyid", "is the key to encrypt with, and encrypt is false; set encrypt: true, or take keyid out")
	}
	for key, size := range map[string]Size{"chunksize": s.ChunkSize, "multipartcopychunksize": s.MultipartCopyChunkSize} {
		if size != 0 && size < minChunk {
			v.add(at+key, "must be at least 5MiB, the least that S3 takes as a part, or left out")
		}
	}
	if s.MultipartCopyMaxConcurrency < 0 {
		v.add(at+"multipartcopymaxconcurrency", "must be more than 0, or left out")
	}
}

func (v *validator) gcs(g *GCS) {
	if g.Bucket == "" {
		v.add("storage.gcs.bucket", "is missing; name the bucket that is to hold the state")
	}
	if g.ChunkSize%(256<<10) != 0 {
		v.add("storage.gcs.chunksize", "must be a multiple of 256KiB")
	}
	if g.MaxConcurrency != 0 && g.MaxConcurrency < 25 {
		v.add("storage.gcs.maxconcurrency", "must be at least 25, or left out for the driver's default of 50")
	}
}

func (v *validator) azure(a *Azure) {
	const at = "storage.azure."
	if a.AccountName == "" {
		v.add(at+"accountname", "is missing; name the storage account")
	}
	if a.Container == "" {
		v.add(at+"container", "is missing; name the container that is to hold the state")
	}
	switch a.Credentials.Type {
	case "", "client_secret", "shared_key", "default_credentials":
	default:
		v.add(at+"credentials.type", "%q is not a value of this key; allowed: client_secret, shared_key, default_credentials", a.Credentials.Type)
	}
	if a.RetryDelay != "" {
		if err := new(Duration).UnmarshalText([]byte(a.RetryDelay)); err != nil {
			v.add(at+"retry_delay", "%v", err)
		}
	}
}
