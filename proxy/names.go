package proxy

// maxName is how long a repository's name may be: registries take no more than distribution's 255.
const maxName = 255

// validRepository holds the name grammar of the distribution spec ("Pulling manifests"), without its regular
// expression, since every request asks. The router's is wider: it allows a host name in front.
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func validRepository(name string) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	for i := 0; ; {
		start := i
		for i < len(name) && alphanumeric(name[i]) {
			i++
		}
		if i == start {
			return false // nothing where letters or digits must be
		}
		if i == len(name) {
			return true
		}
		separator := i
		for i < len(name) && name[i] == name[separator] && (name[i] == '-' || name[i] == '_' && i-separator < 2) {
			i++
		}
		if i == separator {
			if name[i] != '.' && name[i] != '/' {
				return false
			}
			i++
		}
	}
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
