// Package programs pins Helm for the local cluster.
package programs

import _ "helm.sh/helm/v4/cmd/helm"
