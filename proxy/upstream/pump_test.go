package upstream

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

func TestAPumpGrowsAndShrinks(t *testing.T) {
	var sizes []int
	reads := 0
	src := readerFunc(func(p []byte) (int, error) {
		if len(sizes) == 0 || sizes[len(sizes)-1] != len(p) {
			sizes = append(sizes, len(p))
		}
		switch reads++; {
		case reads <= 10:
			return len(p), nil
		case reads <= 100:
			return 10, nil
		}
		return 0, io.EOF
	})
	var out bytes.Buffer
	n, err := pump(&out, src)
	if want := int64(readsToGrow*smallBuffer + (10-readsToGrow)*largeBuffer + 900); n != want || err != nil || int64(out.Len()) != n {
		t.Errorf("pump = %d, %v, want %d", n, err, want)
	}
	if fmt.Sprint(sizes) != fmt.Sprint([]int{smallBuffer, largeBuffer, smallBuffer}) {
		t.Errorf("buffers = %v", sizes)
	}
	if len(largeSlots) != 0 {
		t.Error("a slot for a large buffer was not given back")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
