package upstream

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

func TestAPumpGrowsAndShrinks(t *testing.T) {
	var lengths []int
	reads := 0
	src := readerFunc(func(p []byte) (int, error) {
		if len(lengths) == 0 || lengths[len(lengths)-1] != len(p) {
			lengths = append(lengths, len(p))
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
	small, medium, large := sizes[0].bytes, sizes[1].bytes, sizes[2].bytes
	if want := int64(readsToGrow*(small+medium) + (10-2*readsToGrow)*large + 900); n != want || err != nil || int64(out.Len()) != n {
		t.Errorf("pump = %d, %v, want %d", n, err, want)
	}
	if fmt.Sprint(lengths) != fmt.Sprint([]int{small, medium, large, medium, small}) {
		t.Errorf("buffers = %v", lengths)
	}
	noSlotIsLost(t)
}

func TestAPumpWithoutALargerBufferGoesOnWithItsOwn(t *testing.T) {
	for range cap(sizes[1].slots) {
		sizes[1].slots <- struct{}{}
	}
	reads := 0
	n, err := pump(io.Discard, readerFunc(func(p []byte) (int, error) {
		if reads++; len(p) != sizes[0].bytes {
			t.Errorf("read %d has a buffer of %d", reads, len(p))
		}
		if reads > 3*readsToGrow {
			return 0, io.EOF
		}
		return len(p), nil
	}))
	if want := int64(3 * readsToGrow * sizes[0].bytes); n != want || err != nil {
		t.Errorf("pump = %d, %v, want %d", n, err, want)
	}
	for range cap(sizes[1].slots) {
		<-sizes[1].slots
	}
	noSlotIsLost(t)
}

func noSlotIsLost(t *testing.T) {
	t.Helper()
	for _, s := range sizes {
		if len(s.slots) != 0 {
			t.Errorf("a slot for a buffer of %d bytes was not given back", s.bytes)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
