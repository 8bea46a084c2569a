package proxy

// Settle waits for what nobody waits for: sessions that are cancelled in the background.
func (p *Proxy) Settle() { p.background.Wait() }
