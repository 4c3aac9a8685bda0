// The cache server of `act`, a program of nektos that runs GitHub's workflows, by itself: the peer of `tools/bench
// --only actions`. It is a library there, started only for a workflow's run.
//
//	act-cache FOLDER
//
// Prints its address, listens on loopback at a free port, and ends when its standard input does.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/nektos/act/pkg/artifactcache"
)

func main() {
	if len(os.Args) != 2 {
		fail("usage: act-cache FOLDER")
	}
	server, err := artifactcache.StartHandler(os.Args[1], "", "127.0.0.1", 0, nil)
	if err != nil {
		fail(err)
	}
	fmt.Println(server.ExternalURL())
	// So that none is left when the bench is interrupted.
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = server.Close()
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, "act-cache:", why)
	os.Exit(1)
}
