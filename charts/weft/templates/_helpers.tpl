{{/* Labels of every pod of the chart: nothing that changes with its version, as that would restart them. */}}
{{- define "weft.podLabels" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels of every object of the chart. */}}
{{- define "weft.labels" -}}
{{ include "weft.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "weft.operatorImage" -}}
{{ printf "%s/operator:%s" .Values.image.registry .Values.image.tag }}
{{- end }}

{{- define "weft.proxyImage" -}}
{{ printf "%s/proxy:%s" .Values.image.registry .Values.image.tag }}
{{- end }}

{{- define "weft.pullSecrets" -}}
{{- range $at, $name := .Values.image.pullSecrets }}
{{- if not $at }}imagePullSecrets:{{ end }}
- name: {{ $name }}
{{- end }}
{{- end }}

{{/* The address that proxies call the control plane by. */}}
{{- define "weft.discoveryAddress" -}}
{{ printf "weft-operator.%s.svc:15012" .Release.Namespace }}
{{- end }}

{{/* What every container of Weft's own is confined to. */}}
{{- define "weft.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "weft.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1337
runAsGroup: 1337
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Whether more than one replica may run. */}}
{{- define "weft.replicated" -}}
{{- $scaling := .Values.operator.autoscaling -}}
{{- if or (and $scaling.enabled (gt (int $scaling.maxReplicas) 1)) (and (not $scaling.enabled) (gt (int .Values.operator.replicas) 1)) -}}
true
{{- end -}}
{{- end }}

{{/* One requirement of a label selector, from a list: key, operator, values. */}}
{{- define "weft.requirement" -}}
- key: {{ first . }}
  operator: {{ index . 1 }}
  {{- if gt (len .) 2 }}
  values: [{{ range $at, $value := slice . 2 }}{{ if $at }}, {{ end }}{{ $value | quote }}{{ end }}]
  {{- end }}
{{- end }}

{{/* Annotations of a hook: its event and its weight. What a failed clean-up leaves is there to be looked at; what a failed test
says is in Helm's output. */}}
{{- define "weft.hook" -}}
helm.sh/hook: {{ first . }}
helm.sh/hook-weight: {{ last . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded{{ if eq (first .) "test" }},hook-failed{{ end }}
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end }}

{{/* The settings of a gateway of the chart, from a list: the root and `ingress` or `egress`. Nothing when it is not enabled. */}}
{{- define "weft.gateway" -}}
{{- $gateways := (first .).Values.gateways -}}
{{- $gateway := mergeOverwrite (deepCopy $gateways.common) (deepCopy (get $gateways (last .))) -}}
{{- if $gateway.enabled -}}
{{ toYaml $gateway }}
{{- end -}}
{{- end }}

{{/* What selects the pods of a gateway. */}}
{{- define "weft.gatewaySelector" -}}
app: {{ .name }}
{{ toYaml .labels }}
{{- end }}

{{/* Whether more than one pod of a gateway may run. */}}
{{- define "weft.gatewayReplicated" -}}
{{- $scaling := .autoscaling -}}
{{- if or (and $scaling.enabled (gt (int $scaling.maxReplicas) 1)) (and (not $scaling.enabled) (gt (int .replicas) 1)) -}}
true
{{- end -}}
{{- end }}

{{/* The namespaces whose Secrets the operator may read, as a JSON list under the key `namespaces`. */}}
{{- define "weft.secretNamespaces" -}}
{{- $namespaces := .Values.gateways.secretNamespaces -}}
{{- if or .Values.gateways.ingress.enabled .Values.gateways.egress.enabled -}}
{{- $namespaces = append $namespaces .Release.Namespace -}}
{{- end -}}
{{- if has "*" $namespaces }}{{ $namespaces = list "*" }}{{ end -}}
{{ dict "namespaces" ($namespaces | uniq | sortAlpha) | toJson }}
{{- end }}
