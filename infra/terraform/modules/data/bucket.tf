# Bytes: inbox/ and outbox/ of people; p/ packs, r/ results, l/ logs, k/ checkpoints, f/ packages, and what is kept for a day: u/ bodies
# of requests and answers, and below it u/collect/, how far results are that several invocations write.

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Access logs of a bucket of machine traffic cost more than the bucket; CloudTrail's data events can be turned on
  #checkov:skip=CKV_AWS_144:A grid is of one region; its table is not in another either
  #checkov:skip=CKV_AWS_145:A key of the customer's own costs by the call; kms_key_arn names one
  #checkov:skip=CKV2_AWS_62:It notifies of what is put under inbox/, in queues.tf
  bucket        = var.bucket
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# An uploaded file is known by key and version, so that one that is put again is another job.
resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "rest-of-uploads-and-versions"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
    noncurrent_version_expiration {
      noncurrent_days = 1
    }
    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "bodies"
    status = "Enabled"
    filter {
      prefix = "u/"
    }
    expiration {
      days = 1
    }
  }

  dynamic "rule" {
    for_each = { for name, days in { inbox = var.inbox_days, outbox = var.outbox_days } : name => days if days > 0 }
    content {
      id     = rule.key
      status = "Enabled"
      filter {
        prefix = "${rule.key}/"
      }
      expiration {
        days = rule.value
      }
    }
  }

  # Rules on versions need them.
  depends_on = [aws_s3_bucket_versioning.this]
}
