# The resource policy where the broker's configuration names none. It is closed: only sessions whose every component was
# affirmed get secrets, and in production none whose platform is simulated.
package policy

default allow := false

allow if {
	data.plugin == "resource"
	data.method == "GET"
	graded
	genuine
}

# Golden values are signed and secret to nobody; whoever was attested may read them.
allow if {
	data.plugin == "resource"
	data.method == "GET"
	count(data["resource-path"]) == 3
	data["resource-path"][0] == "golden"
	data["resource-path"][1] == "dsse"
	count(input.submods) > 0
}

graded if {
	count(input.submods) > 0
	every submod in input.submods { submod["ear.status"] in data.release.status }
}

genuine if {
	input.simulated == false
	every submod in input.submods { not submod["ear.veraison.annotated-evidence"].sample }
}

genuine if data.release.environment == "development"

reasons contains sprintf("the session's status is %v, not %v", [statuses, concat(" or ", data.release.status)]) if {
	not graded
	statuses := concat(", ", [submod["ear.status"] | some submod in input.submods])
}

reasons contains "the platform is SIMULATED, or its evidence a sample" if not genuine
