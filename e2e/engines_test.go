//go:build e2e

package e2e

type engine struct{}

func (b *workbench) startClassicEngine() (*engine, error) { return nil, nil }
func (b *workbench) startModernEngine() (*engine, error)  { return nil, nil }
