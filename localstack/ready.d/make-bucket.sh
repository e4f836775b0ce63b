#!/bin/bash
# Makes the archive's bucket. LocalStack keeps S3 in memory only, so this runs at every start. The
# health check in docker-compose.yml asks for the bucket: a healthy container has run this script.
set -euo pipefail

location=${ARCHIVE_URL:-s3://carga}
bucket=${location#s3://}
bucket=${bucket%%/*}

if ! awslocal s3api head-bucket --bucket "$bucket" >/dev/null 2>&1; then
  awslocal s3api create-bucket --bucket "$bucket" >/dev/null
fi
echo "the bucket $bucket exists"
