# The table, as shared/aws/src/schema.rs has it; a test compares them.

locals {
  indexes = {
    jobs  = { partition = "tn", sort = "cr" }
    alive = { partition = "al", sort = "cr" }
    due   = { partition = "dk", sort = "dr" }
  }
  attributes = merge(
    { pk = "S", sk = "S" },
    { for index in local.indexes : index.partition => "S" },
    { for name in toset([for index in local.indexes : index.sort]) : name => "B" },
  )
}

resource "aws_dynamodb_table" "this" {
  #checkov:skip=CKV_AWS_119:A key of the customer's own costs by the month and by the call; kms_key_arn names one
  #checkov:skip=CKV_AWS_28:It is on unless point_in_time_recovery says otherwise
  name                        = var.grid
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  stream_enabled              = true
  stream_view_type            = "NEW_IMAGE"
  deletion_protection_enabled = var.deletion_protection

  dynamic "attribute" {
    for_each = local.attributes
    content {
      name = attribute.key
      type = attribute.value
    }
  }

  dynamic "global_secondary_index" {
    for_each = local.indexes
    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value.partition
      range_key       = global_secondary_index.value.sort
      projection_type = "KEYS_ONLY"
    }
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  # Without a key of one's own it is AWS's, at no cost.
  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn[*]
    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }
}
