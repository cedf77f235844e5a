variable "name" {
  description = "Name of the role."
  type        = string
}

variable "description" {
  description = "Who has it."
  type        = string
}

variable "service" {
  description = "Service that may take the role."
  type        = string
}

variable "table" {
  description = "The grid's table."
  type        = object({ name = string, arn = string })
}

variable "table_rights" {
  description = "Actions of DynamoDB on items of partitions, which may end in a wildcard."
  type        = list(object({ actions = list(string), partitions = list(string) }))
  default     = []
}

variable "indexes" {
  description = "Indexes of the table that may be queried."
  type        = list(string)
  default     = []
}

variable "bucket" {
  description = "The grid's bucket."
  type        = object({ name = string, arn = string })
}

variable "object_rights" {
  description = "Actions of S3 on objects of prefixes."
  type        = list(object({ actions = list(string), prefixes = list(string) }))
  default     = []
}

variable "learns_of_missing_objects" {
  description = "Whether it must tell an object that is not there from one that it may not read."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "Key of the table and bucket, if it is one of the customer."
  type        = string
  default     = null
}

variable "statements" {
  description = "All else: actions on resources."
  type = list(object({
    Effect    = optional(string, "Allow")
    Action    = list(string)
    Resource  = list(string)
    Condition = optional(map(map(list(string))))
  }))
  default = []
}
