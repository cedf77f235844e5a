# Rights for people and programs, to be attached to their users and roles.

locals {
  key = var.kms_key_arn == null ? [] : [
    { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = [var.kms_key_arn] },
  ]
  policies = {
    client = {
      description = "Calls the API of the grid ${var.grid}"
      statements = [
        { Effect = "Allow", Action = ["execute-api:Invoke"], Resource = ["${var.api_arn}/$default/*/*"] },
      ]
    }
    # What the Lambdas submit and read may do together.
    direct = {
      description = "Uses the grid ${var.grid} without its API"
      statements = concat(local.key, [
        {
          Effect   = "Allow"
          Action   = ["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"]
          Resource = [var.table.arn]
          Condition = {
            "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["G", "S#*", "C#*", "F#*", "N#*", "E#*", "W"] }
            Null                      = { "dynamodb:LeadingKeys" = "false" }
          }
        },
        {
          Effect   = "Allow"
          Action   = ["dynamodb:PutItem", "dynamodb:UpdateItem"]
          Resource = [var.table.arn]
          Condition = {
            "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["S#*", "C#*"] }
            Null                      = { "dynamodb:LeadingKeys" = "false" }
          }
        },
        {
          Effect   = "Allow"
          Action   = ["dynamodb:PutItem"]
          Resource = [var.table.arn]
          Condition = {
            "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["F#*", "N#*"] }
            Null                      = { "dynamodb:LeadingKeys" = "false" }
          }
        },
        # `sheaf doctor` looks at them.
        { Effect = "Allow", Action = ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"], Resource = [var.table.arn] },
        { Effect = "Allow", Action = ["dynamodb:Query"], Resource = [for index in ["jobs", "alive"] : "${var.table.arn}/index/${index}"] },
        { Effect = "Allow", Action = ["s3:GetObject"], Resource = [for prefix in ["p/", "r/", "l/", "f/"] : "${var.bucket.arn}/${prefix}*"] },
        { Effect = "Allow", Action = ["s3:PutObject", "s3:AbortMultipartUpload"], Resource = [for prefix in ["p/", "f/"] : "${var.bucket.arn}/${prefix}*"] },
        { Effect = "Allow", Action = ["s3:ListBucket"], Resource = [var.bucket.arn] },
        { Effect = "Allow", Action = ["sqs:SendMessage", "sqs:GetQueueUrl", "sqs:GetQueueAttributes"], Resource = [for queue in var.lanes : queue.arn] },
      ])
    }
    files = {
      description = "Puts files into the inbox of the grid ${var.grid} and takes results out of its outbox"
      statements = concat(local.key, [
        { Effect = "Allow", Action = ["s3:PutObject", "s3:AbortMultipartUpload"], Resource = ["${var.bucket.arn}/inbox/*"] },
        { Effect = "Allow", Action = ["s3:GetObject"], Resource = ["${var.bucket.arn}/inbox/*", "${var.bucket.arn}/outbox/*"] },
        {
          Effect    = "Allow"
          Action    = ["s3:ListBucket"]
          Resource  = [var.bucket.arn]
          Condition = { StringLike = { "s3:prefix" = ["inbox/*", "outbox/*"] } }
        },
      ])
    }
  }
}

resource "aws_iam_policy" "this" {
  for_each = local.policies

  name        = "${var.grid}-${each.key}"
  description = each.value.description
  policy      = jsonencode({ Version = "2012-10-17", Statement = each.value.statements })
}
