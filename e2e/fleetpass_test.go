//go:build e2e

package e2e

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// onOneProcess are the tests that a pass on the fleet leaves out, and why. Every other test is a flow, and runs.
var onOneProcess = map[string]string{
	"TestWithoutConfigurationSluiceIsARegistryOfItsOwn": "the embedded registry is a folder, which replicas cannot share",
	"TestKilledAtAnyMomentOfAPushTheNextOneEndsTheSame": "kills the one process; TestAReplicaKilledAtAnyMomentIsNotMissed kills one of several",
	"TestALayerOfOneGibibyteStreams":                    "measures one process and its data folder",
	"TestSixtyFourUploadsAtOnceStream":                  "measures one process and its data folder",
	"TestPromtoolAcceptsTheQueriesOfTheDashboard":       "no process runs",
	"TestPromtoolAcceptsRulesAndMetrics":                "asks one process for its metrics",
	"TestComposeDemoShowsWhatSluiceIsFor":               "the demo is one process",
	"TestDemoWithoutDocker":                             "the demo is one process",

	"TestAReplicaKilledAtAnyMomentIsNotMissed":               "has a fleet of its own in the first pass",
	"TestReplicasWithClocksAnHourApartAreOneForEveryClient":  "has a fleet of its own in the first pass",
	"TestSweepersOfReplicasDoNotDisturbEachOtherNorPushes":   "has a fleet of its own in the first pass",
	"TestAPushMakesAsFewRequestsToARealBucketAsCounted":      "has a fleet of its own in the first pass",
	"TestReplicasOfTwoConfigurationsAgreeOnWhatGoesUpstream": "has a fleet of its own in the first pass",
	"TestAReplicaWithoutItsBucketSaysWhatIsWrong":            "is about a process that does not start",
	"TestEveryTestThatThePassOnTheFleetLeavesOutExists":      "reads source",
	"TestADirectPushLeavesWhatTheLeakCheckLooksFor":          "no Sluice is in between",
	"TestTheDemosImageIsWhatBuildKitMakes":                   "no Sluice is in between",
	"TestAWSCLIAgainstTheDouble":                             "is about ECR's double",
	"TestECRCredentialHelperAgainstTheDouble":                "is about ECR's double",
	"TestTheChartIsWhatHelmLikes":                            "no process runs",
	"TestTheChartRefusesWhatCannotWork":                      "no process runs",
	"TestTheChartsServiceAccountTakesARole":                  "no process runs",
	"TestTheUnitIsWhatSystemdLikes":                          "no process runs",
}

// leaveOut is -skip for these tests, beside what the command line skips.
func leaveOut() error {
	flag.Parse()
	skip := "^(" + strings.Join(slices.Sorted(maps.Keys(onOneProcess)), "|") + ")$"
	if more := flag.Lookup("test.skip").Value.String(); more != "" {
		skip = more + "|" + skip
	}
	return flag.Set("test.skip", skip)
}

// paired leaves out half of the variants of a flow on the fleet, where each flow is to run, with each view and each form of
// attestations: that all of them go together the pass on one process shows.
func paired(i, j int) bool { return !onFleet() || i%2 == j%2 }

// A name that no test has any more would leave out nothing, and hide that the test with the new name is not meant to run.
func TestEveryTestThatThePassOnTheFleetLeavesOutExists(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				tests[f.Name.Name] = true
			}
		}
	}
	for name := range onOneProcess {
		if !tests[name] {
			t.Errorf("there is no %s", name)
		}
	}
}
