#!/usr/bin/env bash
# A certification authority for signed caller numbers (STIR/SHAKEN), for laboratories and tests: a root, a provider's certificate with
# TNAuthList (RFC 8226), and a TLS certificate for the server that hands it out. Needs openssl; nothing leaves the machine.
#
#   scripts/stir-authority.sh DIR [PROVIDER_CODE | FIRST_NUMBER COUNT] [HOST]
#
#   DIR/root.pem            sip.stir.roots_file, and https_roots_file for the server below
#   DIR/leaf.key leaf.pem   voicepay call --identity-key DIR/leaf.key --identity-x5u https://HOST:8443/leaf.pem
#   DIR/tls.key tls.pem     the server: cd DIR && openssl s_server -accept 8443 -key tls.key -cert tls.pem -WWW
set -euo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
fi
dir=$1
shift
provider=${1:-709J}
case "$provider" in
  [+0-9]*[0-9]) # a range of numbers; a provider's code has a letter in it
    first=${1#+} count=${2:?a range needs its COUNT}
    shift 2
    if [ "$count" -gt 1 ]; then entry="EXPLICIT:1,SEQUENCE:numbers"; else entry="EXPLICIT:2,IA5STRING:$first"; fi
    ;;
  *)
    entry="EXPLICIT:0,IA5STRING:$provider"
    shift || true
    ;;
esac
host=${1:-localhost}

umask 077
mkdir -p "$dir"
cd "$dir"
days=825
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

key root.key
openssl req -x509 -new -key root.key -sha256 -days "$days" -subj "/CN=Laboratory STI root" -out root.pem \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null

# What a certificate is for stands in a section of its own.
cat > extensions.cnf <<EXTENSIONS
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
1.3.6.1.5.5.7.1.26 = ASN1:SEQUENCE:list
[list]
entry = $entry
[numbers]
first = IA5STRING:${first:-0}
count = INTEGER:${count:-2}
[tls]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:$host
EXTENSIONS

issue() { # NAME SUBJECT SECTION
  key "$1.key"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA root.pem -CAkey root.key -CAcreateserial -sha256 -days "$days" \
    -extfile extensions.cnf -extensions "$3" -out "$1.pem" 2>/dev/null
  rm "$1.csr"
}
issue leaf "/CN=SHAKEN $provider" leaf
issue tls "/CN=$host" tls
rm -f extensions.cnf root.srl
echo "made $dir: root.pem, leaf.pem (leaf.key), tls.pem (tls.key)"
