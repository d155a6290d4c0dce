package image

import (
	"fmt"
	"testing"
)

// A record of who may have an image does not grow without a bound: those who came
// last stay in it.
func TestHoldersAreBounded(t *testing.T) {
	var h holders
	for i := range mostKept + 3 {
		name := fmt.Sprint(i)
		h = h.and(holders{Secrets: []holder{{Name: name}}, Accounts: []account{{Name: name}}})
	}
	if n := len(h.Accounts); n != mostKept || h.Accounts[0].Name != "3" || h.Accounts[n-1].Name != fmt.Sprint(mostKept+2) {
		t.Errorf("%d service accounts, from %s to %s", n, h.Accounts[0].Name, h.Accounts[n-1].Name)
	}
	if n := len(h.Secrets); n != mostKept || h.Secrets[0].Name != "3" || h.Secrets[n-1].Name != fmt.Sprint(mostKept+2) {
		t.Errorf("%d secrets, from %s to %s", n, h.Secrets[0].Name, h.Secrets[n-1].Name)
	}
}
