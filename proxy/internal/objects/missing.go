package objects

// Missing says that something is not there. Most of what is asked for is not, and hardly anybody reads why, so the text
// is made for whoever does.
type Missing struct {
	Doing      string // such as "look for"
	What       string // such as "stored blob"
	Digest     string
	Repository string
	Err        error // the package's own word for it
}

func (m *Missing) Error() string {
	return m.Doing + " " + m.What + " " + Shortened(m.Digest) + " of repository " + m.Repository + ": " + m.Err.Error()
}

func (m *Missing) Unwrap() error { return m.Err }
