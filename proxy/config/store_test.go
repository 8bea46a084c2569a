package config

import "testing"

func TestWhereAttestationsOfARepositoryGo(t *testing.T) {
	for _, c := range []struct {
		to                         StoreTo
		template, repository, want string
	}{
		{StoreToStorage, "{repository}-attestations", "team/app", ""},
		{StoreToReferrers, "{repository}-attestations", "team/app", "team/app"},
		{StoreToRepository, "{repository}-attestations", "team/app", "team/app-attestations"},
		{StoreToRepository, "{repository}-attestations", "team/app-attestations", "team/app-attestations"},
		{StoreToRepository, "{repository}-attestations", "attestations", "attestations-attestations"},
		{StoreToRepository, "attest/{repository}", "team/app", "attest/team/app"},
		{StoreToRepository, "attest/{repository}", "attest/team/app", "attest/team/app"},
		{StoreToRepository, "attest/{repository}/all", "app", "attest/app/all"},
		{StoreToRepository, "attest/{repository}/all", "attest/all", "attest/attest/all/all"},
		{StoreToRepository, "attestations", "team/app", "attestations"},
		{StoreToRepository, "attestations", "attestations", "attestations"},
	} {
		config := Default()
		config.Store.To, config.Store.Repository = c.to, c.template
		if got := config.StoreIn(c.repository); got != c.want {
			t.Errorf("to %s %s: attestations of %s go to %q, want %q", c.to, c.template, c.repository, got, c.want)
		}
	}
}
