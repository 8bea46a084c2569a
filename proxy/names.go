package proxy

import "sluice/proxy/internal/objects"

// maxName is how long a repository's name may be: registries take no more than distribution's 255.
const maxName = objects.MaxRepository

// validRepository holds the name grammar of the distribution spec. The router's is wider: it allows a host name in front.
func validRepository(name string) bool { return objects.ValidRepository(name) }

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
