# The policy of a guest whose configuration names none.
package agent_policy

# Neither shows nor changes anything of the guest's owner.
default GuestDetailsRequest := true
default GetOOMEventRequest := true

# The host can end the guest anyway; asking for it lets the log be sealed.
default DestroySandboxRequest := true
