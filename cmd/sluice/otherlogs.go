package main

import (
	"log"
	"log/slog"
	"strings"

	"github.com/sirupsen/logrus"
)

// takeOverLogs sends to logger what libraries write to logs of the whole process, on stderr and in forms of their own: net/http
// as a client through log, distribution's storage drivers through logrus, which an embedded registry takes for itself later.
func takeOverLogs(logger *slog.Logger) {
	lines := otherLines{logger}
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(lines)
	logrus.SetLevel(logrus.WarnLevel)
	logrus.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true, DisableColors: true})
	logrus.SetOutput(lines)
}

type otherLines struct{ logger *slog.Logger }

func (o otherLines) Write(line []byte) (int, error) {
	// net/http quotes an answer that nobody asked for, which may hold a token or the URL of an upload.
	text, _, _ := strings.Cut(string(line), " starting with ")
	o.logger.Warn("a library reports", "message", strings.TrimSpace(text))
	return len(line), nil
}
