package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder lays a YAML document over a Config. It walks the nodes itself instead of
// using yaml's KnownFields, because yaml reports neither the path of a bad value
// nor where a good one stood, which Validate needs for its messages.
type decoder struct {
	source   source
	mistakes Mistakes
}

// document decodes one YAML document into c. An empty one changes nothing.
func (d *decoder) document(c *Config, b []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			d.syntax(err)
		}
		return
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return // only comments, or `---`
	}
	d.value(root, reflect.ValueOf(c).Elem(), "")
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case err == nil:
		d.add(more.Line, "", "a second YAML document begins here; the configuration is one document")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func (d *decoder) syntax(err error) {
	text, line := err.Error(), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	d.add(line, "", "not YAML: "+text+whatToDo(text))
}

// whatToDo translates the errors of the YAML library that do not tell who wrote `[**]` or a tab what is wrong.
func whatToDo(text string) string {
	switch {
	case strings.Contains(text, "expected alphabetic or numeric character"): // the name of an anchor or alias
		return "; a value that begins with * or & needs quotes, such as \"**\""
	case strings.Contains(text, "character that cannot start any token"):
		return "; indent with spaces, not tabs, and put a value that begins with @, ` or % in quotes"
	case strings.Contains(text, "mapping values are not allowed"):
		return "; indent the keys of one mapping alike, and put a value with a colon and a space in quotes"
	case strings.Contains(text, "did not find expected key"), strings.Contains(text, "block collection"):
		return "; indent the keys of one mapping, and the dashes of one list, alike"
	case strings.Contains(text, "UTF-8"), strings.Contains(text, "control characters"):
		return "; is it the right file? Save it as plain text in UTF-8"
	case strings.Contains(text, "unknown anchor"):
		return "; a value that begins with * needs quotes"
	}
	return ""
}

func (d *decoder) add(line int, key, problem string) {
	d.mistakes = append(d.mistakes, Mistake{Origin: d.source.file, Line: line, Key: key, Problem: problem})
}

// value decodes one node. key is its path, "" for the root.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string) {
	line := n.Line
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if key != "" {
		d.source.keys[key] = place{d.source.file, line}
	}
	null := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		if s3, ok := v.Interface().(*S3); ok {
			*s3 = defaultS3()
		}
		v = v.Elem()
		if null { // `inmemory:` alone names the driver
			return
		}
	}
	if null {
		d.add(line, key, "has no value; give it one, or take the key out")
		return
	}
	switch {
	case v.Kind() == reflect.Struct:
		d.mapping(n, v, key, line)
	case v.Kind() == reflect.Slice:
		d.sequence(n, v, key, line)
	case v.Kind() == reflect.Map:
		d.table(n, v, key, line)
	default:
		d.scalar(n, v, key, line)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string, line int) {
	if n.Kind != yaml.MappingNode {
		d.add(line, key, "must be a mapping with the keys "+strings.Join(keysOf(v.Type()), ", "))
		return
	}
	if v.Type() == reflect.TypeFor[Storage]() {
		v.SetZero() // a driver that is named replaces the default one
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		path := k.Value
		if key != "" {
			path = key + "." + k.Value
		}
		if first, twice := seen[k.Value]; twice {
			d.add(k.Line, path, fmt.Sprintf("is set a second time; line %d was the first. Keep one of them", first))
			continue
		}
		seen[k.Value] = k.Line
		field, known := fieldOf(v, k.Value)
		if !known {
			d.add(k.Line, path, unknownKey(path, k.Value, keysOf(v.Type())))
			continue
		}
		d.value(n.Content[i+1], field, path)
		d.source.keys[path] = place{d.source.file, k.Line}
	}
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, key string, line int) {
	if n.Kind != yaml.SequenceNode {
		d.add(line, key, mustBeList(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	if len(n.Content) == 0 {
		v.SetZero() // so that `rules: []` equals the default
	}
	for i, item := range n.Content {
		switch x := v.Index(i).Addr().Interface().(type) {
		case *Upstream:
			*x = defaultUpstream("")
		case *OIDCIssuer:
			*x = defaultIssuer()
		case *Endpoint:
			*x = defaultEndpoint()
		}
		d.value(item, v.Index(i), key+"["+strconv.Itoa(i)+"]")
	}
}

// mustBeList shows how what was written would be a list.
func mustBeList(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode {
		return "must be a list, even with one entry: begin each of its entries with a dash, `- `"
	}
	return "must be a list, even with one entry: write it in brackets, [...]"
}

// table decodes a mapping with names of the operator's choice, such as upstreams[].rates or access.oidc[].claims.
func (d *decoder) table(n *yaml.Node, v reflect.Value, key string, line int) {
	if n.Kind != yaml.MappingNode {
		d.add(line, key, "must be a mapping, such as {}")
		return
	}
	v.SetZero() // so that `rates: {}` equals the default
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		path := key + "." + name.Value
		if name.Kind != yaml.ScalarNode {
			d.add(name.Line, key, "must have single words as keys")
			continue
		}
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		if v.MapIndex(reflect.ValueOf(name.Value)).IsValid() {
			d.add(name.Line, path, fmt.Sprintf("is set a second time; line %d was the first. Keep one of them", d.source.keys[path].line))
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], item, path)
		d.source.keys[path] = place{d.source.file, name.Line}
		v.SetMapIndex(reflect.ValueOf(name.Value), item)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, key string, line int) {
	if n.Kind != yaml.ScalarNode {
		d.add(line, key, "must be a single value, not a list or a mapping")
		return
	}
	if err := setScalar(v, n); err != nil {
		d.add(line, key, err.Error())
	}
}

// setScalar keeps numbers that stand where a string is wanted as they are written
// (`username: 007`), and never puts a secret into its error.
func setScalar(v reflect.Value, n *yaml.Node) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(n.Value))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
	case reflect.Bool:
		switch n.Value {
		case "true", "false":
			v.SetBool(n.Value == "true")
		default:
			return fmt.Errorf("%q is neither true nor false", n.Value)
		}
	case reflect.Int:
		i, err := strconv.Atoi(n.Value)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", n.Value)
		}
		v.SetInt(int64(i))
	default:
		return fmt.Errorf("cannot hold a value of kind %s", v.Kind())
	}
	return nil
}

// fieldOf finds the field of a struct by its YAML key.
func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag == name && tag != "-" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "" && tag != "-" {
			keys = append(keys, tag)
		}
	}
	return keys
}
