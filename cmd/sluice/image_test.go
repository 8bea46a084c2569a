package main

import (
	"strings"
	"testing"
)

func TestAnImageThatCannotBeReadSaysHowToWriteIt(t *testing.T) {
	for image, want := range map[string]string{
		"http://localhost:5000/app:1": "without http://",
		"localhost:5000/App:1":        "lower case",
		"localhost:5000/app:":         "could not parse",
	} {
		_, err := parseImage(image, false)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "name.Insecure") {
			t.Errorf("%s: %v", image, err)
		}
	}
}
