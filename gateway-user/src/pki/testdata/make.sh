#!/bin/bash
# Makes bundle.pem, the certificates, keys and revocation lists of the tests, anew. Needs openssl 3.
# The tests' clock stands at 2026-06-01 00:00:00 UTC.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
from=20260101000000Z
to=20460101000000Z

# key NAME KIND
key() {
    case $2 in
        p256) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" ;;
        p384) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$1.key" ;;
        p521) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out "$1.key" ;;
        ed25519) openssl genpkey -algorithm ED25519 -out "$1.key" ;;
        rsa*) openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:"${2#rsa}" -out "$1.key" ;;
    esac 2>/dev/null
}

# config CA: a small authority of its own directory
config() {
    mkdir -p "$1.d"
    touch "$1.d/index.txt"
    [ -e "$1.d/serial" ] || openssl rand -hex 8 | sed 's/^./1/' > "$1.d/serial"
    [ -e "$1.d/crlnumber" ] || echo 01 > "$1.d/crlnumber"
    cat > "$1.cnf" <<EOF
[ca]
default_ca = x
[x]
new_certs_dir = $work
database = $work/$1.d/index.txt
serial = $work/$1.d/serial
crlnumber = $work/$1.d/crlnumber
default_md = ${MD:-sha256}
policy = p
unique_subject = no
crl_extensions = crlx
[p]
countryName = optional
organizationName = optional
commonName = optional
[crlx]
authorityKeyIdentifier = keyid
[req]
distinguished_name = dn
[dn]
EOF
}

# issue NAME CA KIND SUBJECT EXTENSIONS [ca options]; NAME = CA makes a root
issue() {
    local name=$1 ca=$2 kind=$3 subject=$4 extensions=$5
    shift 5
    [ -e "$name.key" ] || key "$name" "$kind"
    config "$ca"
    openssl req -new -key "$name.key" -subj "$subject" -config "$ca.cnf" -out "$name.csr"
    printf '%b' "$extensions" > "$name.ext"
    local self=()
    [ "$name" = "$ca" ] && self=(-selfsign)
    openssl ca -batch -notext -config "$ca.cnf" -keyfile "$ca.key" ${self[0]:+-selfsign} $([ "$name" = "$ca" ] || echo "-cert $ca.crt") \
        -in "$name.csr" -out "$name.crt" -extfile "$name.ext" -preserveDN -startdate "${START:-$from}" -enddate "${END:-$to}" "$@" 2>log || { cat log; exit 1; }
}

# crl NAME CA LAST NEXT
crl() {
    config "$2"
    openssl ca -gencrl -config "$2.cnf" -keyfile "$2.key" -cert "$2.crt" -crl_lastupdate "$3" -crl_nextupdate "$4" -out "$1.crl" 2>log || { cat log; exit 1; }
}

ca='basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'
leaf='basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n'
san='subjectAltName=DNS:gw.example.org,IP:192.0.2.1,IP:2001:db8::1,email:Ops@example.org\n'
ike='extendedKeyUsage=1.3.6.1.5.5.7.3.17\n'
dn='/C=CH/O=Example/CN=gw'

issue root root p256 '/C=CH/O=Example/CN=Root' "$ca"
issue other other p256 '/C=CH/O=Example/CN=Other' "$ca"
issue impostor impostor p256 '/C=CH/O=Example/CN=Root' "$ca"
START=20200101000000Z END=20210101000000Z issue oldroot oldroot p256 '/C=CH/O=Example/CN=Old Root' "$ca"
issue root521 root521 p521 '/CN=Root 521' "$ca"
issue rootrsa rootrsa rsa2048 '/CN=Root RSA' "$ca"

# The gateway, one per kind of key.
issue ecdsa root p256 "$dn" "$leaf$san$ike"
issue p384 root p384 "$dn" "$leaf$san"
issue p521 root p521 "$dn" "$leaf$san"
issue ed25519 root ed25519 "$dn" "$leaf$san"
issue rsa root rsa2048 "$dn" "$leaf$san"
issue rsa1024 root rsa1024 "$dn" "$leaf$san"
issue plain root p256 "$dn" 'basicConstraints=CA:FALSE\n'
issue nameless root p256 / "$leaf$san"
openssl pkey -in rsa.key -traditional -out rsa-pkcs1.key
openssl pkey -in ecdsa.key -traditional -out ecdsa-sec1.key
openssl pkey -in ecdsa.key -aes256 -passout pass:secret -out ecdsa-encrypted.key
openssl pkey -in ecdsa.key -traditional -aes256 -passout pass:secret -out ecdsa-oldencrypted.key

# Rules.
START=20260101000000Z END=20260201000000Z issue expired root p256 "$dn" "$leaf$san"
START=20270101000000Z issue early root p256 "$dn" "$leaf$san"
issue encipher root p256 "$dn" 'basicConstraints=CA:FALSE\nkeyUsage=critical,keyAgreement\n'
issue nonrepudiation root p256 "$dn" 'basicConstraints=CA:FALSE\nkeyUsage=critical,nonRepudiation\n'
issue codesigning root p256 "$dn" "${leaf}extendedKeyUsage=codeSigning\n"
issue server root p256 "$dn" "${leaf}extendedKeyUsage=codeSigning,serverAuth\n"
issue stranger other p256 "$dn" "$leaf$san"
issue impostorleaf impostor p256 "$dn" "$leaf$san"
issue oldleaf oldroot p256 "$dn" "$leaf$san"
issue by521 root521 p256 "$dn" "$leaf$san" -md sha512
issue bypss rootrsa p256 "$dn" "$leaf$san" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
issue byrsa rootrsa p256 "$dn" "$leaf$san"
issue sha1 rootrsa p256 "$dn" "$leaf$san" -md sha1
issue critical root p256 "$dn" "${leaf}1.2.3.4=critical,ASN1:NULL\n"
issue underleaf ecdsa p256 '/CN=under a leaf' "$leaf$san"

# Authorities on the way.
issue inter0 root p256 '/CN=Inter 0' "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
issue inter0leaf inter0 p256 "$dn" "$leaf$san"
issue inter1 inter0 p256 '/CN=Inter 1' "$ca"
issue inter1leaf inter1 p256 "$dn" "$leaf$san"
issue nosign root p256 '/CN=No sign' 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature,cRLSign\n'
issue nosignleaf nosign p256 "$dn" "$leaf$san"
issue nc root p256 '/CN=Constrained' "${ca}nameConstraints=critical,permitted;DNS:example.org,permitted;IP:192.0.2.0/255.255.255.0\n"
issue ncgood nc p256 "$dn" "${leaf}subjectAltName=DNS:gw.example.org,IP:192.0.2.1\n"
issue ncbadname nc p256 "$dn" "${leaf}subjectAltName=DNS:gw.example.com\n"
issue ncbadaddress nc p256 "$dn" "${leaf}subjectAltName=IP:198.51.100.1\n"
issue ncdn root p256 '/CN=Constrained DN' "${ca}nameConstraints=critical,permitted;dirName:d\n[d]\nC=CH\n"
issue ncdnleaf ncdn p256 '/C=DE/CN=gw' "$leaf$san"

# Revocation.
issue revoked root p256 "$dn" "$leaf$san"
issue interrevoked root p256 '/CN=Inter revoked' "$ca"
issue interrevokedleaf interrevoked p256 "$dn" "$leaf$san"
crl empty root 20260501000000Z 20270501000000Z
for name in revoked interrevoked; do
    config root
    openssl ca -config root.cnf -keyfile root.key -cert root.crt -revoke $name.crt 2>log || { cat log; exit 1; }
done
crl root root 20260515000000Z 20270515000000Z
crl expired root 20260101000000Z 20260201000000Z
crl future root 20270101000000Z 20280101000000Z
crl impostor impostor 20260501000000Z 20270501000000Z
crl inter0 inter0 20260501000000Z 20270501000000Z

{
    echo 'Made by make.sh. Every part follows a line with its name.'
    for file in *.crt *.crl \
        {ecdsa,p384,p521,ed25519,rsa,rsa1024,rsa-pkcs1,ecdsa-sec1,ecdsa-encrypted,ecdsa-oldencrypted,plain,inter0leaf}.key; do
        echo "@ $file"
        cat "$file"
    done
} > "$here/bundle.pem"
