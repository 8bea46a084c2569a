package objects

// MaxAbout is how many artifacts about an attestation may stand one upon the other: its signature, a signature of that, and so
// on. Those that are kept are copied, sent on and expire together with it, so that nothing follows them further.
const MaxAbout = 4
