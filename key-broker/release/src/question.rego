# What is asked for comes with the input and is laid where policies look for it.
package release_question

allow := answer if {
	claims := input.claims
	plugin := input.plugin
	method := input.method
	path := input["resource-path"]
	query := input.query
	release := input.release
	answer := data.policy.allow with input as claims
		with data.plugin as plugin
		with data.method as method
		with data["resource-path"] as path
		with data.query as query
		with data.release as release
}

reasons := answer if {
	claims := input.claims
	plugin := input.plugin
	method := input.method
	path := input["resource-path"]
	query := input.query
	release := input.release
	answer := data.policy.reasons with input as claims
		with data.plugin as plugin
		with data.method as method
		with data["resource-path"] as path
		with data.query as query
		with data.release as release
}
