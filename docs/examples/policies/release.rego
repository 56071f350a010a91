# Team A's keys for affirmed guests; golden values for all who were attested.
package policy

default allow := false

allow if {
	data["resource-path"][0] == "team-a"
	input.submods.cpu0["ear.status"] == "affirming"
}

allow if {
	data["resource-path"][0] == "golden"
	data["resource-path"][1] == "dsse"
}

reasons contains sprintf("status %v", [input.submods.cpu0["ear.status"]]) if {
	input.submods.cpu0["ear.status"] != "affirming"
}
