package config

import (
	"reflect"
	"slices"
	"testing"
)

// A key that is new must be thought about: can a running proxy follow it?
func TestEveryKeyCanChangeOrIsNamedAsOneThatNeedsARestart(t *testing.T) {
	restart := map[string][]string{
		"listen": {"listen"}, "admin": {"admin"}, "storage": {"storage"},
		"tls": {"tls.certificate", "tls.key", "tls.client_ca"},
	}
	for i := range reflect.TypeFor[Config]().NumField() {
		key := reflect.TypeFor[Config]().Field(i).Tag.Get("yaml")
		if key == "" {
			continue
		}
		next := Default()
		other(reflect.ValueOf(next).Elem().Field(i))
		if got := Default().RestartKeys(next); !slices.Equal(got, restart[key]) {
			t.Errorf("with another %s the keys that need a restart are %q, want %q", key, got, restart[key])
		}
	}
	if got := Default().RestartKeys(Default()); got != nil {
		t.Errorf("nothing changed, and %q need a restart", got)
	}
}

// other gives v a value that it did not have.
func other(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("other")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), v.Len()+1, v.Len()+1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Struct:
		for i := range v.NumField() {
			other(v.Field(i))
		}
	}
}
